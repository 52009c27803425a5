package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"pqlab/agent"
	"pqlab/internal/rootless"
	"pqlab/lab"
	"pqlab/topology"
)

func main() {
	agent.Main()
	if err := rootless.Enter(); err != nil {
		panic(err)
	}
	t, err := topology.Builtin(os.Args[1])
	if err != nil {
		panic(err)
	}
	p, err := t.Plan()
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	t0 := time.Now()
	l, err := lab.Up(ctx, p, lab.Options{Log: os.Stderr})
	fmt.Println("up", time.Since(t0))
	if err != nil {
		panic(err)
	}
	defer func() { fmt.Println("down", l.Down(ctx)) }()
	for _, t := range p.Tunnels {
		t0 := time.Now()
		r, err := l.Tunnel(t.Name).Establish(ctx)
		fmt.Println("established", time.Since(t0), err)
		json.NewEncoder(os.Stdout).Encode(r)
	}
	for _, f := range p.Traffic {
		r, err := l.Send(ctx, f, 3*time.Second)
		r.Bins = nil
		fmt.Println(err)
		json.NewEncoder(os.Stdout).Encode(r)
	}
	for _, t := range p.Tunnels {
		for _, n := range []string{t.A.Node, t.B.Node} {
			s, err := l.Tunnel(t.Name).State(ctx, n)
			fmt.Println(err)
			json.NewEncoder(os.Stdout).Encode(s)
		}
	}
}
