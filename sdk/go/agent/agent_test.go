package agent

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

type function func(input *Input) (*Output, error)

func (f function) Process(input *Input) (*Output, error) { return f(input) }

type prepared struct{ ready bool }

func (p *prepared) Init() error { p.ready = true; return nil }

func (p *prepared) Process(*Input) (*Output, error) { return NewOutput().Set("ready", p.ready), nil }

func TestAnAgentIsPreparedAndAsked(t *testing.T) {
	done := Fake{}.Run(&prepared{})
	if done.ExitCode != 0 || string(done.Output) != `{"ready":true}` {
		t.Fatalf("%+v", done)
	}
	if done := (Fake{}).Run(nil); done.ExitCode != 1 {
		t.Fatalf("%+v", done)
	}
}

func TestMembersAreReadByTypeAndRefusedByName(t *testing.T) {
	agent := function(func(input *Input) (*Output, error) {
		numbers, err := input.GetNumbers("numbers")
		if err != nil {
			return nil, err
		}
		name, err := input.GetString("name")
		if err != nil {
			return nil, err
		}
		return NewOutput().Set("count", len(numbers)).Set("name", name).Set("more", input.Has("more")), nil
	})
	for input, want := range map[string]string{
		`{"numbers":[1,2.5],"name":"ü\n"}`:              `{"count":2,"name":"ü\n","more":false}`,
		`{"numbers":[],"name":"\ud83d\ude00","more":0}`: `{"count":0,"name":"😀","more":true}`,
	} {
		if done := (Fake{Input: []byte(input)}).Run(agent); string(done.Output) != want {
			t.Errorf("%s: %s", input, done.Output)
		}
	}
	for input, want := range map[string]string{
		"":                        "input: no value at byte 0",
		"{}":                      "input: there is no member `numbers`",
		"[1]":                     "input: it is no JSON object",
		`{"numbers":["1"]}`:       "input: `numbers` is not a list of numbers",
		`{"numbers":[],"name":1}`: "input: `name` is not a text",
		`{"a":1,"a":2}`:           "input: a member stands twice at byte 10",
		"\xff":                    "input: it is no UTF-8",
		`{"numbers":[01]}`:        "input: no comma between items at byte 13",
		`["\ud800"]`:              "input: half of a character at byte 8",
		`["\u+123"]`:              "input: no four hexadecimal digits at byte 4",
		strings.Repeat("[", 100):  "input: nested too deep at byte 65",
		"\"\x01\"":                "input: a control character in a text at byte 1",
	} {
		done := (Fake{Input: []byte(input)}).Run(agent)
		if done.ExitCode != 2 || len(done.Output) != 0 || done.Log[0].Text != want {
			t.Errorf("%s: %+v", input, done)
		}
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	text := `{"a":[1,-2.5,1e+300,true,null,{"b":"\u0001\n\\\"ü€😀"}],"c":{},"d":[]}`
	value, err := ParseJSON(text)
	if err != nil || JSON(value) != text {
		t.Fatal(JSON(value), err)
	}
}

func TestCapabilitiesMediaMetricsAndStreams(t *testing.T) {
	agent := function(func(input *Input) (*Output, error) {
		value, err := Environment("GREETING")
		if err != nil {
			return nil, err
		}
		network, err := Request("network:https:api.example.com")
		if err != nil {
			return nil, err
		}
		if _, err := network.Invoke("other", nil); !errors.Is(err, InvalidArgument) {
			return nil, Fail(9, "not refused")
		}
		answered, err := network.Invoke("request", []byte("?"))
		if err != nil {
			return nil, err
		}
		name, err := UploadMedia("text/plain", answered)
		if err != nil {
			return nil, err
		}
		kept, err := DownloadMedia(name)
		if err != nil {
			return nil, err
		}
		pieces, err := StartStream("pieces")
		if err != nil {
			return nil, err
		}
		if _, err := pieces.Write(kept); err != nil {
			return nil, err
		}
		count, err := pieces.End()
		if err != nil {
			return nil, err
		}
		return TextOutput(value), Metric("pieces", float64(count))
	})
	host := Fake{
		Environment: map[string]string{"GREETING": "hi"},
		Capabilities: map[string]Operation{"network:https:api.example.com": func(operation string, arguments []byte) ([]byte, error) {
			if operation != "request" {
				return nil, InvalidArgument
			}
			return append([]byte("answer to "), arguments...), nil
		}},
		Media:   map[string][]byte{},
		Streams: true,
	}
	done := host.Run(agent)
	if string(done.Output) != "hi" || !reflect.DeepEqual(done.Metrics, []Measured{{"pieces", 1}}) || string(done.Streams["pieces"][0]) != "answer to ?" {
		t.Fatalf("%+v", done)
	}
	for reason, change := range map[HostError]func(*Fake){
		NotInManifest: func(host *Fake) { host.Media = nil },
		NotSupported:  func(host *Fake) { host.Streams = false },
	} {
		without := host
		change(&without)
		if done := without.Run(agent); done.ExitCode != 3 || done.Log[0].Text != reason.Error() {
			t.Errorf("%+v", done)
		}
	}
}

func TestNamesOfMetricsFollowTheGrammar(t *testing.T) {
	for _, name := range []string{"Upper", "1st", "", "a-b", strings.Repeat("a", 65)} {
		done := Fake{}.Run(function(func(*Input) (*Output, error) { return nil, Metric(name, 1) }))
		if done.ExitCode != 3 {
			t.Errorf("%s: %+v", name, done)
		}
	}
}

func TestAnAgentsOwnCodeIsTheExitCode(t *testing.T) {
	for err, want := range map[error]int32{Fail(7, "no"): 7, Fail(0, "no"): 1, errors.New("no"): 1, nil: 0} {
		if code := ExitCode(err); code != want {
			t.Errorf("%v: %d", err, code)
		}
	}
}

func TestALineOfACommandIsOneLine(t *testing.T) {
	for want, line := range map[string]string{
		"info: a\n":                    logLine(LevelInfo, "a"),
		"warn: a\\nerror: b\\r\\n: \n": logLine(LevelWarn, "a\nerror: b\r\n: "),
		"":                             logLine(LevelTrace+1, "a"),
	} {
		if line != want {
			t.Errorf("%q", line)
		}
	}
	if line, err := metricLine("seen_total", 0.5); line != "metric: seen_total 0.5\n" || err != nil {
		t.Errorf("%q %v", line, err)
	}
	for name, value := range map[string]float64{"a 1\nerror: b": 1, "A": 1, "": 1, "a": math.NaN(), "b": math.Inf(1), strings.Repeat("a", 65): 1} {
		if line, err := metricLine(name, value); line != "" || !errors.Is(err, InvalidArgument) {
			t.Errorf("%q %v", line, err)
		}
	}
}
