//go:build !wasip1

package agent

// The interface `mentat` with errors instead of numbers: over the imports in a core module, over the fake host natively.

const maxTransfer = 8 << 20

func check(result int32) (int32, error) {
	if result < 0 {
		return result, HostError(result)
	}
	return result, nil
}

// fill reads a number of bytes piece by piece.
func fill(length int64, read func(into []byte, at int) int32) ([]byte, error) {
	if length < 0 {
		return nil, HostError(length)
	}
	bytes := make([]byte, length)
	for at := 0; at < len(bytes); {
		got, err := check(read(bytes[at:min(len(bytes), at+maxTransfer)], at))
		if err != nil {
			return nil, err
		}
		if got == 0 {
			return nil, IO
		}
		at += int(got)
	}
	return bytes, nil
}

// take reads a result; its buffer is closed, whatever came of it.
func take(buffer int32) ([]byte, error) {
	if _, err := check(buffer); err != nil {
		return nil, err
	}
	bytes, err := fill(hostBufferLen(buffer), func(into []byte, at int) int32 { return hostBufferRead(buffer, into, int64(at)) })
	hostClose(buffer)
	return bytes, err
}

func readInput() ([]byte, error) { return fill(hostInputLen(), hostReadInput) }

func writeOutput(bytes []byte) error {
	for len(bytes) > 0 {
		piece := bytes[:min(len(bytes), maxTransfer)]
		if _, err := check(hostWriteOutput(piece)); err != nil {
			return err
		}
		bytes = bytes[len(piece):]
	}
	return nil
}

func writeLog(level Level, text string) { hostLog(int32(level), text) }

func recordMetric(name string, value float64) error {
	_, err := check(hostRecordMetric(name, value))
	return err
}

func environment(name string) (string, error) {
	granted, err := Request("env:" + name)
	if err != nil {
		return "", err
	}
	defer granted.Close()
	value, err := granted.Invoke("get", nil)
	return string(value), err
}

// Capability is a capability that was asked for and granted. The executor checks every use of it.
type Capability struct{ handle int32 }

// Request asks for a capability in the grammar of manifests, such as network:https:api.example.com.
func Request(capability string) (*Capability, error) {
	handle, err := check(hostRequestCapability(capability))
	if err != nil {
		return nil, err
	}
	return &Capability{handle}, nil
}

// Invoke uses it: get of env:NAME, request of network:https:HOST.
func (capability *Capability) Invoke(operation string, arguments []byte) ([]byte, error) {
	return take(hostInvokeCapability(capability.handle, operation, arguments))
}

// Close gives the handle back.
func (capability *Capability) Close() { hostClose(capability.handle) }

// DownloadMedia is the object of a reference of the form sha256:…, which extension:media grants.
func DownloadMedia(reference string) ([]byte, error) { return take(hostDownloadMedia(reference)) }

// UploadMedia stores an object; the answer is its reference.
func UploadMedia(mediaType string, bytes []byte) (string, error) {
	reference, err := take(hostUploadMedia(mediaType, bytes))
	return string(reference), err
}

// Stream is output in pieces while the call runs, which extension:stream grants.
type Stream struct{ handle int32 }

// StartStream starts a stream; a name is used once in a call.
func StartStream(id string) (*Stream, error) {
	handle, err := check(hostStartStream(id))
	if err != nil {
		return nil, err
	}
	return &Stream{handle}, nil
}

// Write sends a piece; it waits while the reader is behind.
func (stream *Stream) Write(bytes []byte) (int, error) {
	taken, err := check(hostWriteStream(stream.handle, bytes))
	if err != nil {
		return 0, err
	}
	return int(taken), nil
}

// End ends the stream; the answer is the number of pieces.
func (stream *Stream) End() (int, error) {
	pieces, err := check(hostEndStream(stream.handle))
	if err != nil {
		return 0, err
	}
	return int(pieces), nil
}
