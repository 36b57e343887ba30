package agent

// Output is the output of a call: a JSON object that is built member by member, or bytes of any other form.
type Output struct {
	object Object
	other  []byte
	raw    bool
}

// NewOutput is an empty JSON object.
func NewOutput() *Output { return &Output{} }

// RawOutput is bytes as they are.
func RawOutput(bytes []byte) *Output { return &Output{other: bytes, raw: true} }

// TextOutput is a text as it is.
func TextOutput(text string) *Output { return RawOutput([]byte(text)) }

// Set adds a member, or changes the one of this name: nil, a bool, float64, int, string, []Value, or *Object.
func (output *Output) Set(name string, value Value) *Output {
	output.object.Set(name, value)
	return output
}

// Bytes are the bytes that go to the host.
func (output *Output) Bytes() []byte {
	if output.raw {
		return output.other
	}
	return appendJSON(nil, &output.object)
}
