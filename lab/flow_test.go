package lab

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/topology"
	"pqlab/traffic"
)

// A flow whose sink or relay is killed fails by that node's name, and is not the network's doing.
func TestSendKilled(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"relay", "sink"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			l := up(t, topology.New("x").Host("source").Host("relay").Host("sink").Ethernet("source", "relay").Ethernet("relay", "sink").
				TCP("source", "sink", topology.Via("relay")), Options{})
			ended := make(chan error, 1)
			go func() {
				_, err := l.Send(t.Context(), l.Plan.Traffic[0], time.Hour)
				ended <- err
			}()
			untilBusy(t, l.Node("sink"))
			if err := l.Node(victim).process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				var failed *agent.Error
				if !errors.As(err, &failed) || failed.Node != victim || errors.Is(err, agent.ErrNotCarried) {
					t.Error(err)
				}
			case <-time.After(2 * time.Minute):
				t.Error("the flow goes on")
			}
		})
	}
}

// A sink whose agent hangs is not the network's doing either, and does not hang the lab.
func TestSendStopped(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{traffic.TCP, traffic.UDP} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			b := topology.New("x").Host("source").Host("sink").Ethernet("source", "sink")
			if proto == traffic.TCP {
				b.TCP("source", "sink")
			} else {
				b.UDP("source", "sink", topology.Mbit)
			}
			sendStopped(t, up(t, b, Options{}))
		})
	}
}

func sendStopped(t *testing.T, l *Lab) {
	l.patience = time.Second
	ended := make(chan error, 1)
	go func() {
		_, err := l.Send(t.Context(), l.Plan.Traffic[0], 2*time.Second)
		ended <- err
	}()
	untilBusy(t, l.Node("sink"))
	if err := l.Node("sink").process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		var failed *agent.Error
		if !errors.As(err, &failed) || failed.Node != "sink" || errors.Is(err, agent.ErrNotCarried) {
			t.Error(err)
		}
		t.Log(err)
	case <-time.After(2 * time.Minute):
		t.Error("the flow goes on")
	}
}

// Of a flow whose link dies on the way the result tells what had been sent and received until then.
func TestSendCut(t *testing.T) {
	t.Parallel()
	l := up(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b", 500*topology.Mbit).TCP("a", "b"), Options{Shaper: "wire"})
	type outcome struct {
		traffic.Result
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		got, err := l.Send(t.Context(), l.Plan.Traffic[0], 15*time.Second)
		ended <- outcome{got, err}
	}()
	untilBusy(t, l.Node("b"))
	if err := l.Link("a-b").Set(func(s [2]topology.Shape) ([2]topology.Shape, error) {
		s[0].Loss, s[1].Loss = 1, 1
		return s, nil
	}); err != nil {
		t.Fatal(err)
	}
	got := <-ended
	if !errors.Is(got.err, agent.ErrNotCarried) || got.Name != l.Plan.Traffic[0].Name || got.Received == 0 || got.Received >= got.Sent || len(got.Bins) == 0 {
		t.Errorf("%+v, %v", got.Result, got.err)
	}
}

// untilBusy returns when a node has taken some traffic.
func untilBusy(t *testing.T, n *Node) {
	t.Helper()
	before, err := n.CPU(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if now, err := n.CPU(t.Context()); err != nil || time.Now().After(deadline) {
			t.Fatalf("no traffic: %v, %v", now, err)
		} else if now-before >= 30*time.Millisecond {
			return
		}
	}
}

func TestBlame(t *testing.T) {
	t.Parallel()
	network := fmt.Errorf("silence: %w", agent.ErrNotCarried)
	reset, gone := errors.New("reset"), errors.New("its agent has ended")
	for name, tt := range map[string]struct {
		source  error
		others  []error
		want    error
		network bool
	}{
		"the network":                          {network, []error{nil, nil}, network, true},
		"the source":                           {reset, nil, reset, false},
		"a relay has no way":                   {reset, []error{nil, network}, network, true},
		"a sink is gone, and so silent":        {network, []error{gone, nil}, gone, false},
		"a relay is gone, and another told so": {reset, []error{gone, network}, gone, false},
	} {
		err := blame(tt.source, tt.others...)
		if !errors.Is(err, tt.want) || errors.Is(err, agent.ErrNotCarried) != tt.network {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAsked(t *testing.T) {
	t.Parallel()
	flow := func(proto string, rate topology.Rate, d time.Duration) topology.PlannedFlow {
		return topology.PlannedFlow{Flow: topology.Flow{Proto: proto, Rate: rate, Duration: d}}
	}
	for _, tt := range []struct {
		flow     topology.PlannedFlow
		rate     topology.Rate
		duration time.Duration
	}{
		{flow("tcp", 0, 0), 0, time.Second}, {flow("udp", 0, 0), defaultUDPRate, time.Second}, {flow("udp", 5, time.Hour), 5, time.Hour}, {flow("tcp", 5, 0), 5, time.Second},
	} {
		if rate, d := Asked(tt.flow, time.Second); rate != tt.rate || d != tt.duration {
			t.Errorf("%+v: %v, %v", tt.flow, rate, d)
		}
	}
}
