package main

import (
	"testing"

	"mentat.internal/sdk/agent"
)

func TestItGreetsByName(t *testing.T) {
	done := agent.Fake{Input: []byte(`{"name":"Ada"}`)}.Run(greeter{})
	if done.ExitCode != 0 || string(done.Output) != `{"greeting":"hello, Ada"}` {
		t.Fatalf("%s %+v", done.Output, done)
	}
	if len(done.Log) != 1 || done.Log[0] != (agent.Line{Level: agent.LevelInfo, Text: "greeting"}) {
		t.Fatalf("%+v", done.Log)
	}
}

func TestWithoutANameThereIsNoGreeting(t *testing.T) {
	done := agent.Fake{Input: []byte(`{}`)}.Run(greeter{})
	if done.ExitCode != 2 || len(done.Output) != 0 || done.Log[0].Text != "input: there is no member `name`" {
		t.Fatalf("%+v", done)
	}
}
