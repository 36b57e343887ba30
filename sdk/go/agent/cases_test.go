package agent

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// A step of a case of ../../cases.json.
type step struct {
	Call   string
	Text   *string
	Hex    *string
	Times  *int
	Bytes  int
	Cap    int
	Offset int64
	Handle any
	Value  any
	Ptr    *int
	As     string
	Again  *int
	Gives  any
}

func (s *step) text() string {
	if s.Hex != nil {
		bytes, err := hex.DecodeString(*s.Hex)
		if err != nil {
			panic(err)
		}
		return string(bytes)
	}
	times := 1
	if s.Times != nil {
		times = *s.Times
	}
	return strings.Repeat(*s.Text, times)
}

func (s *step) do(kept map[string]int32) int64 {
	var handle int32
	switch named := s.Handle.(type) {
	case string:
		handle = kept[named]
	case float64:
		handle = int32(named)
	}
	switch s.Call {
	case "input_len":
		return hostInputLen()
	case "read_input":
		return int64(hostReadInput(make([]byte, s.Cap), int(s.Offset)))
	case "write_output":
		return int64(hostWriteOutput(make([]byte, s.Bytes)))
	case "record_metric":
		value, plain := s.Value.(float64)
		if !plain {
			value = map[string]float64{"nan": math.NaN(), "inf": math.Inf(1)}[s.Value.(string)]
		}
		return int64(hostRecordMetric(s.text(), value))
	case "buffer_len":
		return hostBufferLen(handle)
	case "buffer_read":
		return int64(hostBufferRead(handle, make([]byte, s.Cap), s.Offset))
	case "close":
		return int64(hostClose(handle))
	case "request_capability":
		return int64(hostRequestCapability(s.text()))
	case "invoke_capability":
		return int64(hostInvokeCapability(handle, s.text(), make([]byte, s.Bytes)))
	case "download_media":
		return int64(hostDownloadMedia(s.text()))
	case "upload_media":
		return int64(hostUploadMedia(s.text(), make([]byte, s.Bytes)))
	case "start_stream":
		return int64(hostStartStream(s.text()))
	case "write_stream":
		return int64(hostWriteStream(handle, make([]byte, s.Bytes)))
	case "end_stream":
		return int64(hostEndStream(handle))
	}
	panic("no such call: " + s.Call)
}

// TestTheFakeHostAnswersAsEveryOtherHost does the cases that need no addresses.
func TestTheFakeHostAnswersAsEveryOtherHost(t *testing.T) {
	text, err := os.ReadFile("../../cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		Cases []struct {
			Name    string
			Streams *bool
			Steps   []step
		}
	}
	if err := json.Unmarshal(text, &table); err != nil || len(table.Cases) < 10 {
		t.Fatal(err, len(table.Cases))
	}
	for _, c := range table.Cases {
		if slices.ContainsFunc(c.Steps, func(s step) bool { return s.Ptr != nil }) {
			continue
		}
		host := Fake{
			Input:       []byte("0123456789"),
			Environment: map[string]string{"TOKEN": "s3cret"},
			Media:       map[string][]byte{},
			Streams:     c.Streams == nil || *c.Streams,
		}
		host.Run(function(func(*Input) (*Output, error) {
			kept := map[string]int32{}
			for place, s := range c.Steps {
				times := 1
				if s.Again != nil {
					times = *s.Again
				}
				for range times {
					got := s.do(kept)
					if s.As != "" {
						kept[s.As] = int32(got)
					}
					if want, number := s.Gives.(float64); number && got != int64(want) || !number && got <= 0 {
						t.Errorf("%s: step %d, %s: %d", c.Name, place, s.Call, got)
					}
				}
			}
			return nil, nil
		}))
	}
}
