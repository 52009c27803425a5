package main

import (
	"slices"
	"strings"
	"testing"

	"pqlab/report"
)

// needESP skips where the kernel carries no tunnel.
func needESP(t *testing.T) {
	t.Helper()
	for _, what := range []string{"xfrm policies", "esp", "nftables"} {
		if !found(t, what) {
			t.Skipf("no %s in this kernel: make testvm runs this in one that has it", what)
		}
	}
}

// The kernel's tunnel rekeys by volume, and loses nothing and refuses nothing meanwhile.
func TestRunXfrm(t *testing.T) {
	needLabs(t)
	needESP(t)
	clean(t)
	var r result
	var got report.Result
	for _, long := range []string{"5s", "20s", "60s"} { // an emulated processor on a busy machine takes longer to carry so much
		r = pqlab(t, "run", "east-west", "--dataplane", "xfrm", "--rekey-blocks", "200000", "--duration", long, "--json")
		if got = parse[report.Result](t, r.out); r.code != exitOK || len(got.Rekeys) >= 2 {
			break
		}
		t.Logf("%d rekeys in %s", len(got.Rekeys), long)
	}
	if r.code != exitOK || !strings.HasPrefix(got.Dataplane, "xfrm/") || len(got.Rekeys) < 2 {
		t.Errorf("exit status %d, %s, %d rekeys: %s", r.code, got.Dataplane, len(got.Rekeys), r.err)
	}
	for _, k := range got.Rekeys {
		if k.Trigger != "blocks" || k.Lost != 0 {
			t.Errorf("a rekey by %s lost %d packets", k.Trigger, k.Lost)
		}
	}
	for _, node := range []string{"d1", "d2"} {
		if rose, ok := got.XfrmStat[node]; !ok || len(rose) > 0 {
			t.Errorf("node %s: xfrm_stat was seen: %v; it rose by %v", node, ok, rose)
		}
	}
	if len(got.XfrmStat) != 2 {
		t.Errorf("xfrm_stat of %v", got.XfrmStat)
	}
}

// What the daemons of a tunnel that strongSwan keys had to say is in the result.
func TestRunStrongSwan(t *testing.T) {
	needLabs(t)
	needESP(t)
	if !found(t, "strongswan") {
		t.Skip("no strongSwan here: pqlab vm fetch --strongswan")
	}
	clean(t)
	r := pqlab(t, "run", "east-west", "--keying", "strongswan", "--duration", "1s", "--json")
	got := parse[report.Result](t, r.out)
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	var nodes []string
	for _, l := range got.Logs {
		nodes = append(nodes, l.Node)
		if !slices.ContainsFunc(l.Lines, func(line string) bool { return strings.Contains(line, "CHILD_SA") }) {
			t.Errorf("the log of %s at node %s does not tell of its tunnel: %q", l.Program, l.Node, l.Lines)
		}
	}
	slices.Sort(nodes)
	if !slices.Equal(nodes, []string{"d1", "d2"}) {
		t.Errorf("logs of %v", nodes)
	}
}

// A link that carries nothing fails the check of a tunnel that strongSwan keys as that of one that pqlab keys, and the run goes on.
func TestRunStrongSwanUnanswered(t *testing.T) {
	needLabs(t)
	needESP(t)
	if !found(t, "strongswan") {
		t.Skip("no strongSwan here: pqlab vm fetch --strongswan")
	}
	clean(t)
	file := write(t, `
name: unanswered
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}]
links: [{kind: ethernet, a: a, b: b, loss: 100%}, {kind: ethernet, a: b, b: c}]
tunnels: [{name: ike, a: a, b: b, keying: strongswan, deadline: 2s}]
traffic: [{name: dead, from: a, to: b, proto: udp, rate: 1Mbit/s}, {name: good, from: b, to: c, proto: tcp}]
`)
	r := pqlab(t, "run", file, "--duration", "300ms", "--json")
	got := parse[report.Result](t, r.out)
	if r.code != exitFailed || len(got.Traffic) != 2 || got.Traffic[0].Undelivered == "" || got.Traffic[1].Undelivered != "" || got.Traffic[1].Received == 0 {
		t.Fatalf("exit status %d, %+v: %s", r.code, got.Traffic, r.err)
	}
	ok := map[string]bool{}
	for _, c := range got.Checks {
		ok[c.Name] = c.OK
	}
	for name, want := range map[string]bool{"tunnel ike is keyed": false, "dead arrives": false, "good arrives": true} {
		if is, there := ok[name]; !there || is != want {
			t.Errorf("%s: %v, %v", name, there, is)
		}
	}
}
