package lab

import (
	"testing"

	"pqlab/topology"
)

// The pair, with its two agents and its tunnel's policy at both ends; an exchange is not part of it.
func BenchmarkUpPair(b *testing.B) {
	needNamespaces(b)
	t, err := topology.Builtin("pair")
	if err != nil {
		b.Fatal(err)
	}
	benchmarkUp(b, t)
}

// Nodes without services, which cost a namespace each.
func BenchmarkUpChain(b *testing.B) {
	needNamespaces(b)
	benchmarkUp(b, topology.Chain(100))
}

func benchmarkUp(b *testing.B, t *topology.Topology) {
	plan, err := t.Plan()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l, err := Up(b.Context(), plan, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Down(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
