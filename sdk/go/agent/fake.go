//go:build !wasip1 && !wasm_unknown

package agent

import (
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Operation is what a granted capability does when it is used. A [HostError] is how it refuses.
type Operation func(operation string, arguments []byte) ([]byte, error)

// Fake is a host that is no executor: agents run natively, in the test's own process, and the test sees what they did. It keeps
// the rules of the interface that an agent can notice: grammars, ranges, handles, what was not granted. It has no limits of time and
// memory, and grants what the test says, where an executor asks its policy.
type Fake struct {
	// Input is the input of the call.
	Input []byte
	// Environment are the variables that are granted.
	Environment map[string]string
	// Capabilities are what else is granted, by its text in the manifest.
	Capabilities map[string]Operation
	// Media are the objects of the store by their references; nil means that it is not granted.
	Media map[string][]byte
	// Streams makes this a call whose streams are read.
	Streams bool
}

// Done is what a call left.
type Done struct {
	// ExitCode is 0, or that of the error.
	ExitCode int32
	// Output is the output.
	Output []byte
	// Log are the log lines, in order.
	Log []Line
	// Metrics are the metrics, in order.
	Metrics []Measured
	// Streams are the pieces of every stream.
	Streams map[string][][]byte
}

// Line is a log line.
type Line struct {
	Level Level
	Text  string
}

// Measured is a value of a metric.
type Measured struct {
	Name  string
	Value float64
}

// Run calls an agent.
func (fake Fake) Run(agent Agent) Done {
	turn.Lock()
	defer turn.Unlock()
	current = &call{Fake: fake, handles: map[int32]any{}, next: 7001, done: Done{Streams: map[string][][]byte{}}}
	defer func() { current = nil }()
	code := answer(agent)
	done := current.done
	done.ExitCode = code
	return done
}

// Run serves a call natively, from standard input to standard output: a way to try an agent by hand.
func Run() {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		os.Exit(3)
	}
	done := Fake{Input: input}.Run(registered)
	for _, line := range done.Log {
		_, _ = os.Stderr.WriteString(line.Text + "\n")
	}
	_, _ = os.Stdout.Write(done.Output)
	os.Exit(int(done.ExitCode))
}

var (
	// One call at a time: the package stands for one instance.
	turn    sync.Mutex
	current *call

	capabilityForm = regexp.MustCompile(`^(env:[A-Za-z_][A-Za-z0-9_]{0,127}|(compute|extension|filesystem|network):(?s:.+))$`)
	mediaTypeForm  = regexp.MustCompile(`^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$`)
	referenceForm  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

const (
	maxName      = 4096
	maxStreamID  = 256
	maxMediaType = 128
	maxHandles   = 64
	maxStreams   = 16
	// What is longer reaches the reader of a stream as several pieces.
	pieceOfStream = 128 << 10
)

// tooLong tells whether a text or a transfer is longer than one may be.
func tooLong(length, limit int) bool { return length > limit || length > maxTransfer }

type call struct {
	Fake
	done    Done
	handles map[int32]any
	next    int32
}

type stream struct{ id string }

func (c *call) insert(resource any) int32 {
	held := 0
	for _, other := range c.handles {
		if bytes, ok := other.([]byte); ok {
			held += len(bytes)
		}
	}
	bytes, _ := resource.([]byte)
	if len(c.handles) >= maxHandles || held+len(bytes) > maxTransfer {
		return int32(Limit)
	}
	handle := c.next
	c.next++
	c.handles[handle] = resource
	return handle
}

func (c *call) result(bytes []byte, err error) int32 {
	if err == nil {
		return c.insert(bytes)
	}
	if code, ok := err.(HostError); ok {
		return int32(code)
	}
	return int32(IO)
}

func hostInputLen() int64 { return int64(len(current.Input)) }

func hostReadInput(into []byte, offset int) int32 { return copied(into, current.Input, offset) }

// copied is as much as fits.
func copied(into, from []byte, offset int) int32 {
	if len(into) > maxTransfer {
		return int32(Limit)
	}
	return int32(copy(into, from[min(offset, len(from)):]))
}

func hostWriteOutput(bytes []byte) int32 {
	if len(bytes) > maxTransfer {
		return int32(Limit)
	}
	current.done.Output = append(current.done.Output, bytes...)
	return int32(len(bytes))
}

func hostLog(level int32, text string) {
	if level >= 0 && level <= int32(LevelTrace) && len(text) <= maxTransfer && utf8.ValidString(text) {
		current.done.Log = append(current.done.Log, Line{Level(level), text})
	}
}

func hostRecordMetric(name string, value float64) int32 {
	if tooLong(len(name), maxName) {
		return int32(Limit)
	}
	if !isMetricName(name) || math.IsNaN(value) || math.IsInf(value, 0) {
		return int32(InvalidArgument)
	}
	current.done.Metrics = append(current.done.Metrics, Measured{name, value})
	return 0
}

func hostBufferLen(buffer int32) int64 {
	if bytes, ok := current.handles[buffer].([]byte); ok {
		return int64(len(bytes))
	}
	return int64(BadHandle)
}

func hostBufferRead(buffer int32, into []byte, offset int64) int32 {
	if offset < 0 {
		return int32(InvalidArgument)
	}
	if bytes, ok := current.handles[buffer].([]byte); ok {
		return copied(into, bytes, int(min(offset, int64(len(bytes)))))
	}
	return int32(BadHandle)
}

func hostClose(handle int32) int32 {
	if _, ok := current.handles[handle]; !ok {
		return int32(BadHandle)
	}
	delete(current.handles, handle)
	return 0
}

func hostRequestCapability(capability string) int32 {
	if tooLong(len(capability), maxName) {
		return int32(Limit)
	}
	if !utf8.ValidString(capability) || !capabilityForm.MatchString(capability) {
		return int32(InvalidArgument)
	}
	if operation, ok := current.Capabilities[capability]; ok {
		return current.insert(operation)
	}
	name, _ := strings.CutPrefix(capability, "env:")
	if value, ok := current.Environment[name]; ok && name != capability {
		return current.insert(Operation(func(operation string, _ []byte) ([]byte, error) {
			if operation != "get" {
				return nil, InvalidArgument
			}
			return []byte(value), nil
		}))
	}
	return int32(NotInManifest)
}

func hostInvokeCapability(handle int32, operation string, arguments []byte) int32 {
	if tooLong(len(operation), maxName) || len(arguments) > maxTransfer {
		return int32(Limit)
	}
	if !utf8.ValidString(operation) {
		return int32(InvalidArgument)
	}
	granted, ok := current.handles[handle].(Operation)
	if !ok {
		return int32(BadHandle)
	}
	return current.result(granted(operation, arguments))
}

func hostDownloadMedia(name string) int32 {
	switch bytes, ok := current.Media[name]; {
	case tooLong(len(name), maxName):
		return int32(Limit)
	case current.Media == nil:
		return int32(NotInManifest)
	case !referenceForm.MatchString(name):
		return int32(InvalidArgument)
	case !ok:
		return int32(IO)
	default:
		return current.insert(bytes)
	}
}

func hostUploadMedia(mediaType string, bytes []byte) int32 {
	if tooLong(len(mediaType), maxMediaType) || len(bytes) > maxTransfer {
		return int32(Limit)
	}
	if current.Media == nil {
		return int32(NotInManifest)
	}
	if !mediaTypeForm.MatchString(mediaType) {
		return int32(InvalidArgument)
	}
	// Of the right form and of its own for every object; the digest is the executor's work.
	number := strconv.FormatInt(int64(len(current.Media)+1), 16)
	name := "sha256:" + strings.Repeat("0", 64-len(number)) + number
	current.Media[name] = append([]byte{}, bytes...)
	return current.insert([]byte(name))
}

func hostStartStream(id string) int32 {
	if tooLong(len(id), maxName) {
		return int32(Limit)
	}
	if !utf8.ValidString(id) {
		return int32(InvalidArgument)
	}
	if !current.Streams {
		return int32(NotSupported)
	}
	if _, known := current.done.Streams[id]; known || id == "" || len(id) > maxStreamID || strings.ContainsFunc(id, unicode.IsControl) {
		return int32(InvalidArgument)
	}
	if len(current.done.Streams) >= maxStreams {
		return int32(Limit)
	}
	current.done.Streams[id] = [][]byte{}
	return current.insert(stream{id})
}

func hostWriteStream(handle int32, bytes []byte) int32 {
	if len(bytes) > maxTransfer {
		return int32(Limit)
	}
	open, ok := current.handles[handle].(stream)
	if !ok {
		return int32(BadHandle)
	}
	for at := 0; at < len(bytes); at += pieceOfStream {
		piece := append([]byte{}, bytes[at:min(at+pieceOfStream, len(bytes))]...)
		current.done.Streams[open.id] = append(current.done.Streams[open.id], piece)
	}
	return int32(len(bytes))
}

func hostEndStream(handle int32) int32 {
	open, ok := current.handles[handle].(stream)
	if !ok {
		return int32(BadHandle)
	}
	delete(current.handles, handle)
	return int32(len(current.done.Streams[open.id]))
}
