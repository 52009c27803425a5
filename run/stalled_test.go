package run

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pqlab/lab"
	"pqlab/probe"
	"pqlab/report"
	"pqlab/topology"
	"pqlab/traffic"
)

// Where a gateway stands still, packets find no room in front of it, and the run tells where.
func TestStalled(t *testing.T) {
	for node, where := range map[string]string{"d1": "interface", "d2": "UDP port 4500"} {
		t.Run(node, func(t *testing.T) {
			owner.Check(t)
			top, err := topology.Builtin("east-west") // of which the ends of the tunnel only forward
			if err != nil {
				t.Fatal(err)
			}
			p, err := top.Plan()
			if err != nil {
				t.Fatal(err)
			}
			p.Traffic = slices.DeleteFunc(p.Traffic, func(f topology.PlannedFlow) bool { return f.Proto != traffic.UDP })
			p.Traffic[0].Name, p.Traffic[0].Rate, p.Traffic[0].FrameSize, p.Traffic[0].Duration = "up", 30*topology.Mbit, 200, 5*time.Second // which the other end carries even on a busy machine
			r := &runner{
				plan: p, ledger: newLedger(p), started: traffic.Now(), result: report.Result{CPUSeconds: map[string]float64{}},
				options: Options{Lab: lab.Options{Log: os.Stderr, Dataplane: probe.Gateway, Port: "tun"}, Duration: time.Second},
			}
			told := make(chan string, 1)
			r.options.Progress = func(s string) {
				if !strings.HasPrefix(s, traffic.UDP) {
					return
				}
				go func() { told <- r.stall(t, node) }()
			}
			if err := r.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if place := <-told; !strings.Contains(place, where) {
				t.Errorf("dropped by %q", place)
			}
			if len(r.result.NodeDrops) != 1 || r.result.NodeDrops[0].Node != node || !strings.Contains(r.result.NodeDrops[0].Place, where) {
				t.Errorf("%+v", r.result.NodeDrops)
			}
			for _, c := range r.result.Checks {
				if c.Name == "up loses nothing on the way" && (c.OK || !strings.Contains(c.Detail, where) || !strings.Contains(c.Detail, "node "+node)) {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// stall stops a node's agent until packets were dropped there, and gives the place.
func (r *runner) stall(t *testing.T, node string) string {
	pid := r.lab.Node(node).PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Error(err)
		return ""
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		dropped, err := r.lab.Dropped()
		if err != nil {
			t.Error(err)
			return ""
		}
		for _, d := range r.risen(dropped) {
			if d.Node == node {
				return d.Place
			}
		}
	}
	return ""
}
