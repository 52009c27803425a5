package topology

import (
	"fmt"
	"testing"
)

func TestDump(t *testing.T) {
	for _, b := range Builtins() {
		top, err := Builtin(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := top.Plan()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("==", b.Name)
		for _, n := range p.Nodes {
			fmt.Printf("%s %s fwd=%v svc=%v\n", n.Name, n.Kind, n.Forward, n.Services)
			for _, i := range n.Interfaces {
				fmt.Println("   ", i)
			}
			for _, i := range n.Routes {
				fmt.Println("    r", i)
			}
		}
		for _, l := range p.Links {
			fmt.Printf("%+v\n", l)
		}
		for _, l := range p.Tunnels {
			fmt.Printf("%+v\n", l)
		}
		for _, l := range p.Traffic {
			fmt.Printf("%+v\n", l)
		}
		fmt.Println(p.Notes)
	}
}

func BenchmarkChain(b *testing.B) {
	t := Chain(1000)
	for b.Loop() {
		t.Plan()
	}
}
