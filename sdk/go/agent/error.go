package agent

import "errors"

// HostError is a negative result of the interface.
type HostError int32

// The results of version 1.
const (
	InvalidArgument HostError = -1 - iota // an argument outside its grammar or range
	OutOfRange                            // a range outside the memory
	NotInManifest                         // the manifest does not ask for it
	PolicyDenied                          // policy does not grant it
	BadHandle                             // a closed, foreign or made-up handle
	Limit                                 // a limit is reached
	IO                                    // input or output failed
	NotSupported                          // not offered by this executor or call
	TimedOut                              // it timed out
	Revoked                               // something that vouched for this agent was revoked
)

var hostErrors = [...]string{
	"invalid argument", "range outside the memory", "the manifest does not ask for it", "policy does not grant it", "bad handle",
	"a limit is reached", "input or output failed", "not offered here", "timed out", "revoked",
}

// Error is for people.
func (code HostError) Error() string {
	if place := int(-code) - 1; place >= 0 && place < len(hostErrors) {
		return "host: " + hostErrors[place]
	}
	return "host: an unknown error"
}

// InputError says that the input is not what the agent takes.
type InputError struct{ What string }

// Error is for people.
func (e *InputError) Error() string { return "input: " + e.What }

type failure struct {
	code    int32
	message string
}

func (f *failure) Error() string { return f.message }

// Fail is the agent's own reason with an exit code of its own; 0 would mean success and becomes 1.
func Fail(code int32, message string) error {
	if code == 0 {
		code = 1
	}
	return &failure{code, message}
}

// ExitCode is what the call ends with: the code of [Fail], 2 for an input that the agent does not take, 3 when the host
// refused, 1 for any other error.
func ExitCode(err error) int32 {
	var own *failure
	var input *InputError
	var host HostError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &input):
		return 2
	case errors.As(err, &host):
		return 3
	}
	return 1
}
