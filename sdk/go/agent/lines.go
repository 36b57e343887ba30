//go:build !wasm_unknown

package agent

import (
	"math"
	"strconv"
	"strings"
)

// The lines of standard error that an executor reads as log lines and metrics of a command (docs/formats/agent-abi.md).

var levelNames = [...]string{"error", "warn", "info", "debug", "trace"}

// One call of Log is one line: what would begin a second one is written as an escape, as the executor does for core modules.
var oneLine = strings.NewReplacer("\n", `\n`, "\r", `\r`)

// logLine is a log line as it is written; empty for a level that there is not.
func logLine(level Level, text string) string {
	if level < 0 || int(level) >= len(levelNames) {
		return ""
	}
	return levelNames[level] + ": " + oneLine.Replace(text) + "\n"
}

// metricLine is a value of a metric as it is written, under the rules that the executor has for it.
func metricLine(name string, value float64) (string, error) {
	if !isMetricName(name) || math.IsNaN(value) || math.IsInf(value, 0) {
		return "", InvalidArgument
	}
	return "metric: " + name + " " + strconv.FormatFloat(value, 'g', -1, 64) + "\n", nil
}

// isMetricName tells whether a name is [a-z_][a-z0-9_]* of at most 64 bytes.
func isMetricName(name string) bool {
	if len(name) == 0 || len(name) > 64 || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for place := range len(name) {
		if c := name[place]; c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
