//go:build wasip1

package agent

import (
	"io"
	"os"
)

// A command over WASI preview 1: standard input, output and error. The executor reads the lines of standard error as log lines
// and metrics (lines.go).

// Run serves the call and ends the program.
func Run() { os.Exit(int(answer(registered))) }

func readInput() ([]byte, error) {
	bytes, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, IO
	}
	return bytes, nil
}

func writeOutput(bytes []byte) error {
	if _, err := os.Stdout.Write(bytes); err != nil {
		return IO
	}
	return nil
}

func writeLog(level Level, text string) {
	// A line that cannot be written is no failure of the call.
	_, _ = os.Stderr.WriteString(logLine(level, text))
}

func recordMetric(name string, value float64) error {
	line, err := metricLine(name, value)
	if err != nil {
		return err
	}
	if _, err := os.Stderr.WriteString(line); err != nil {
		return IO
	}
	return nil
}

func environment(name string) (string, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", NotInManifest
	}
	return value, nil
}

// Capability is not offered to commands.
type Capability struct{}

// Request is not offered to commands: variables are read by [Environment], files by the package os.
func Request(string) (*Capability, error) { return nil, NotSupported }

// Invoke is not offered to commands.
func (*Capability) Invoke(string, []byte) ([]byte, error) { return nil, NotSupported }

// Close has nothing to give back.
func (*Capability) Close() {}

// DownloadMedia is not offered to commands.
func DownloadMedia(string) ([]byte, error) { return nil, NotSupported }

// UploadMedia is not offered to commands.
func UploadMedia(string, []byte) (string, error) { return "", NotSupported }

// Stream is not offered to commands.
type Stream struct{}

// StartStream is not offered to commands.
func StartStream(string) (*Stream, error) { return nil, NotSupported }

// Write is not offered to commands.
func (*Stream) Write([]byte) (int, error) { return 0, NotSupported }

// End is not offered to commands.
func (*Stream) End() (int, error) { return 0, NotSupported }
