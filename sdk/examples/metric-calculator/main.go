// The metric calculator: a list of numbers comes in, what is to be known about them goes out, and is recorded as metrics.
package main

import (
	"math"
	"slices"

	"mentat.internal/sdk/agent"
)

func init() { agent.Register(calculator{}) }

func main() { agent.Run() }

type calculator struct{}

// Process answers {"values":[…]} with {"count":…,"sum":…,"mean":…,"minimum":…,"median":…,"p95":…,"maximum":…,"deviation":…}.
func (calculator) Process(input *agent.Input) (*agent.Output, error) {
	values, err := input.GetNumbers("values")
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, agent.Fail(1, "there are no values")
	}
	output := agent.NewOutput().Set("count", len(values))
	for _, known := range summary(values) {
		if err := agent.Metric(known.name, known.value); err != nil {
			return nil, err
		}
		output.Set(known.name, known.value)
	}
	return output, nil
}

type measure struct {
	name  string
	value float64
}

func summary(values []float64) []measure {
	slices.Sort(values)
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	mean := sum / float64(len(values))
	squares := 0.0
	for _, value := range values {
		squares += (value - mean) * (value - mean)
	}
	return []measure{
		{"sum", sum},
		{"mean", mean},
		{"minimum", values[0]},
		{"median", quantile(values, 0.5)},
		{"p95", quantile(values, 0.95)},
		{"maximum", values[len(values)-1]},
		{"deviation", math.Sqrt(squares / float64(len(values)))},
	}
}

// quantile lies between the two sorted values beside it.
func quantile(sorted []float64, part float64) float64 {
	place := part * float64(len(sorted)-1)
	below := int(place)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	return sorted[below] + (place-float64(below))*(sorted[below+1]-sorted[below])
}
