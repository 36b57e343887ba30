// An agent that greets.
package main

import "mentat.internal/sdk/agent"

func init() { agent.Register(greeter{}) }

func main() { agent.Run() }

type greeter struct{}

// Process answers {"name":"Ada"} with {"greeting":"hello, Ada"}. Without a name the call ends with exit code 2.
func (greeter) Process(input *agent.Input) (*agent.Output, error) {
	name, err := input.GetString("name")
	if err != nil {
		return nil, err
	}
	agent.Info("greeting")
	if err := agent.Metric("name_bytes", float64(len(name))); err != nil {
		return nil, err
	}
	return agent.NewOutput().Set("greeting", "hello, "+name), nil
}
