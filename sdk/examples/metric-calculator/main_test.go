package main

import (
	"os"
	"strings"
	"testing"

	"mentat.internal/sdk/agent"
)

func TestTheCaseGivesItsAnswer(t *testing.T) {
	input, err := os.ReadFile("case.input.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("case.output.json")
	if err != nil {
		t.Fatal(err)
	}
	done := agent.Fake{Input: input}.Run(calculator{})
	if done.ExitCode != 0 || string(done.Output) != strings.TrimSpace(string(want)) {
		t.Fatalf("%s %+v", done.Output, done)
	}
	if len(done.Metrics) != 7 || done.Metrics[0] != (agent.Measured{Name: "sum", Value: 40}) {
		t.Fatalf("%+v", done.Metrics)
	}
}

func TestWhatHasNoSummaryIsRefused(t *testing.T) {
	for input, want := range map[string]int32{`{"values":[]}`: 1, `{"values":["1"]}`: 2, `{}`: 2, ``: 2} {
		if done := (agent.Fake{Input: []byte(input)}).Run(calculator{}); done.ExitCode != want || len(done.Output) != 0 {
			t.Errorf("%s: %+v", input, done)
		}
	}
}
