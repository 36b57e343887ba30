// Package agent is the SDK for agents of the Mentat executor in Go.
//
//	type greeter struct{}
//
//	func (greeter) Process(input *agent.Input) (*agent.Output, error) {
//		name, err := input.GetString("name")
//		if err != nil {
//			return nil, err
//		}
//		agent.Info("greeting")
//		return agent.NewOutput().Set("greeting", "hello, "+name), nil
//	}
//
//	func init() { agent.Register(greeter{}) }
//	func main() { agent.Run() }
//
// One source, two compilers. TinyGo (-target wasm-unknown) makes a core module over the interface `mentat`, version 1, with all
// that the package has. Go (GOOS=wasip1) makes a command over WASI preview 1, because its runtime needs that system interface and
// the executor links no module to both: input is standard input, output standard output, log lines and metrics go to standard
// error, variables are those of the environment, and what else the interface has answers [NotSupported]. Natively, package and
// agent run on a [Fake] host. A function of the interface that an agent does not use is not imported.
package agent

// Agent is what a module is.
type Agent interface {
	// Process answers an input. The text of an error becomes a log line, and [ExitCode] the exit code of the call.
	Process(input *Input) (*Output, error)
}

// Initializer is an agent that wants to be called once before Process.
type Initializer interface {
	// Init prepares the agent.
	Init() error
}

var registered Agent

// Register makes an agent that of the module. It belongs into a function init: a core module has no main.
func Register(agent Agent) { registered = agent }

// answer serves one call: the exit code. Nothing is written for a call that failed.
func answer(agent Agent) int32 {
	err := process(agent)
	if err == nil {
		return 0
	}
	Error(err.Error())
	return ExitCode(err)
}

func process(agent Agent) error {
	if agent == nil {
		return Fail(1, "no agent is registered")
	}
	bytes, err := readInput()
	if err != nil {
		return err
	}
	if agent, ok := agent.(Initializer); ok {
		if err := agent.Init(); err != nil {
			return err
		}
	}
	output, err := agent.Process(&Input{bytes: bytes})
	if err != nil {
		return err
	}
	if output == nil {
		output = NewOutput()
	}
	return writeOutput(output.Bytes())
}

// Level is the severity of a log line.
type Level int32

// Levels, the worst first.
const (
	LevelError Level = iota
	LevelWarn
	LevelInfo
	LevelDebug
	LevelTrace
)

// Log writes a log line. It never fails: over the executor's limits a line is dropped and counted.
func Log(level Level, text string) { writeLog(level, text) }

// Error writes a log line at LevelError.
func Error(text string) { writeLog(LevelError, text) }

// Warn writes a log line at LevelWarn.
func Warn(text string) { writeLog(LevelWarn, text) }

// Info writes a log line at LevelInfo.
func Info(text string) { writeLog(LevelInfo, text) }

// Debug writes a log line at LevelDebug.
func Debug(text string) { writeLog(LevelDebug, text) }

// Metric records a finite value under a name of the form [a-z_][a-z0-9_]*, at most 64 bytes.
func Metric(name string, value float64) error { return recordMetric(name, value) }

// Environment is the value of a variable that env:NAME grants.
func Environment(name string) (string, error) { return environment(name) }
