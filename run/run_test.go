package run

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/capture"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/probe"
	"pqlab/report"
	"pqlab/supervisor"
	"pqlab/topology"
	"pqlab/traffic"
)

var owner hygiene.Owner // answers for what the labs of these tests leave

func TestMain(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "run: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else an agent with the race detector takes a second to end
	owner = hygiene.Self()
	os.Exit(m.Run())
}

// small is a lab that rekeys within a fraction of a second, with one flow that is not protected.
const small = `
name: small
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}]
links:
  - {name: ab, kind: fibre, a: a, b: b}
  - {name: bc, kind: ethernet, a: b, b: c}
tunnels:
  - {name: vpn, a: a, b: b, suite: dilithium2+kyber512, rekey: {packets: 200}}
traffic:
  - {name: up, from: a, to: b, proto: udp, rate: 16Mbit/s, frame_size: 800}
  - {name: plain, from: b, to: c, proto: tcp}
`

func plan(t *testing.T, text string) *topology.Plan {
	t.Helper()
	top, err := topology.Parse("small.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDo(t *testing.T) {
	owner.Check(t)
	p := plan(t, small)
	// Some 370 packets in all: more than are worth a rekey, and never twice as many on one SA, however long an exchange takes
	// on a busy machine, for that would be too late.
	p.Traffic[0].Rate = 3 * topology.Mbit
	dir := filepath.Join(t.TempDir(), "deep", "captures")
	var told []string
	result, err := Do(t.Context(), p, Options{
		Lab: lab.Options{Log: os.Stderr, Dataplane: probe.Gateway}, Duration: 800 * time.Millisecond, Capture: dir, Version: "v1", Command: []string{"pqlab", "run"},
		Progress: func(s string) { told = append(told, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	if result.Verdict() != report.Pass {
		t.Error(result.Verdict())
	}
	// A check for the tunnel's keys, for their replacement, for its hard limits, for what it refused, for each flow, for the loss of the UDP flow, for the link, for the
	// rekeys, for the captures.
	if n := len(result.Checks); n != 10 {
		t.Errorf("%d checks: %+v", n, result.Checks)
	}
	if result.Topology != "small" || result.Version != "v1" || !slices.Equal(result.Command, []string{"pqlab", "run"}) || result.Kernel == "" ||
		result.Machine.CPUs == 0 || result.Shaper != "none" || !strings.HasPrefix(result.Dataplane, "gateway/") || result.UpMs <= 0 ||
		result.Duration <= result.UpMs || !strings.Contains(result.Picture, "<svg") || time.Since(result.Started) > time.Hour {
		t.Errorf("result of %+v", result)
	}
	if len(result.Tunnels) != 1 {
		t.Fatalf("tunnels %+v", result.Tunnels)
	}
	tunnel := result.Tunnels[0]
	x := tunnel.Exchange
	if tunnel.Suite != "dilithium2+kyber512" || tunnel.Combiner != "xor" || tunnel.Identity != "fresh" || x == nil || x.Ms <= 0 ||
		x.BytesSent == 0 || x.BytesReceived == 0 || x.Bytes != x.BytesSent+x.BytesReceived {
		t.Errorf("tunnel %+v, exchange %+v", tunnel, x)
	}
	steps := map[string]bool{}
	for _, s := range x.Steps {
		steps[strings.TrimSpace(s.Name+" "+s.Side)] = s.Ms > 0
	}
	for _, s := range []string{
		"TLS", "signature keygen responder", "KEM keygen responder", "sign responder", "verify initiator", "encaps initiator",
		"decaps responder", "combine initiator", "combine responder",
	} {
		if !steps[s] {
			t.Errorf("no step %s in %v", s, x.Steps)
		}
	}
	if len(tunnel.SAs) != 4 || len(tunnel.Drops) != 2 {
		t.Errorf("SAs %+v, drops %+v", tunnel.SAs, tunnel.Drops)
	}
	if len(result.Traffic) != 2 || result.Traffic[0].Name != "up" || result.Traffic[0].Received == 0 || result.Traffic[0].Latency == nil ||
		len(result.Traffic[0].Tunnels) != 1 || len(result.Traffic[1].Tunnels) != 0 || result.Traffic[1].Start < result.Traffic[0].Start+result.Traffic[0].Duration {
		t.Errorf("traffic %+v", result.Traffic)
	}
	if len(result.Rekeys) == 0 {
		t.Error("no rekeys")
	}
	for _, k := range result.Rekeys {
		if k.Tunnel != "vpn" || k.Trigger != "packets" || k.Lost != 0 || k.Ms <= 0 || k.At <= 0 || k.At > result.Duration {
			t.Errorf("rekey %+v", k)
		}
	}
	if len(result.Watches) != 1 || result.Watches[0].Link != "ab" || result.Watches[0].ESPinUDP == 0 || result.Watches[0].Exchange == 0 {
		t.Errorf("watches %+v", result.Watches)
	}
	if nodes := slices.Sorted(maps.Keys(result.CPUSeconds)); !slices.Equal(nodes, []string{"a", "b", "c"}) || result.CPUSeconds["a"] <= 0 {
		t.Errorf("CPU %v", result.CPUSeconds)
	}
	if len(result.XfrmStat) != 0 { // what the kernel counts says nothing of a gateway's tunnels
		t.Errorf("xfrm_stat %v", result.XfrmStat)
	}
	if len(result.Captures) != 2 {
		t.Fatalf("captures %+v", result.Captures)
	}
	for _, c := range result.Captures {
		if info, err := os.Stat(c.File); err != nil || info.Size() == 0 || c.Captured == 0 || filepath.Dir(c.File) != dir {
			t.Errorf("capture %+v: %v", c, err)
		}
	}
	if len(told) < 6 {
		t.Errorf("progress %q", told)
	}
	// The captures do not keep a report out of their directory, nor the report further captures.
	if err := result.WriteDir(filepath.Dir(dir)); err != nil {
		t.Error(err)
	}
	if err := report.CheckDir(filepath.Dir(dir)); err != nil {
		t.Error(err)
	}
}

// What the kernel's IPsec refuses in a run fails it, by node and reason; a run in which it refuses nothing says so.
func TestXfrmStat(t *testing.T) {
	owner.Check(t)
	if _, err := probe.Dataplane(probe.XFRM); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	const unknown = 3 // packets of an SPI that nobody has
	for _, encapsulation := range []string{"udp", "esp"} {
		for _, provoked := range []bool{false, true} {
			p := plan(t, small)
			p.Tunnels[0].Encapsulation = encapsulation
			p.Tunnels[0].Rekey.Packets = 1e6 // no machine is too slow for that
			r := &runner{
				plan: p, ledger: newLedger(p), started: traffic.Now(), result: report.Result{CPUSeconds: map[string]float64{}},
				options: Options{Lab: lab.Options{Dataplane: probe.XFRM}, Duration: 400 * time.Millisecond},
			}
			const flow = 2
			step := -1
			r.options.Progress = func(string) {
				if step++; step != flow || !provoked {
					return
				}
				if err := r.lab.Node("b").Namespace().Do(func() error { return stray(p.Tunnels[0], unknown) }); err != nil {
					t.Error(err)
				}
			}
			if err := r.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := map[string]uint64{}
			if provoked {
				want["XfrmInNoStates"] = unknown
			}
			if got := r.result.XfrmStat; len(got) != 2 || !maps.Equal(got["a"], want) || got["b"] == nil || len(got["b"]) != 0 {
				t.Errorf("%s, provoked %v: %v", encapsulation, provoked, got)
			}
			i := slices.IndexFunc(r.result.Checks, func(c report.Check) bool { return c.Name == statisticsCheck })
			if i < 0 || r.result.Checks[i].OK == provoked {
				t.Errorf("%s, provoked %v: %+v", encapsulation, provoked, r.result.Checks)
			}
		}
	}
}

// stray sends n ESP packets that nobody has an SA for to the first end of a tunnel.
func stray(tunnel topology.PlannedTunnel, n int) error {
	network, to := "ip:50", tunnel.OuterA.String()
	if tunnel.Encapsulation == "udp" {
		network, to = "udp", netip.AddrPortFrom(tunnel.OuterA, ipsec.UDPPort).String()
	}
	c, err := net.Dial(network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	for seq := range n {
		packet := make([]byte, 64)
		binary.BigEndian.PutUint32(packet, 0xdeadbeef)
		binary.BigEndian.PutUint32(packet[4:], uint32(seq+1))
		if _, err := c.Write(packet); err != nil {
			return err
		}
	}
	return nil
}

// Whenever a run is interrupted, it says so, and nothing of it is left.
func TestDoCancelled(t *testing.T) {
	owner.Check(t)
	p := plan(t, small)
	interrupted := func(when string, arm func(cancel func()) func(string)) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := Do(ctx, p, Options{Duration: time.Minute, Progress: arm(cancel)})
		var left *lab.DownError
		if err == nil || !errors.Is(err, context.Canceled) || errors.As(err, &left) {
			t.Errorf("cancelled %s: %v", when, err)
		}
	}
	for step := range 3 { // the lab, the tunnel, the first flow
		interrupted(fmt.Sprintf("at step %d", step), func(cancel func()) func(string) {
			n := -1
			return func(string) {
				if n++; n == step {
					cancel()
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 6 {
		d := time.Duration(r.Int64N(int64(150 * time.Millisecond)))
		interrupted(fmt.Sprintf("after %v", d), func(cancel func()) func(string) {
			time.AfterFunc(d, cancel)
			return nil
		})
	}
}

// A run whose agent is killed ends at once and says which it was, even if what it was doing goes on without that agent.
func TestAgentKilled(t *testing.T) {
	owner.Check(t)
	const exchange, udp, tcp = 1, 2, 3 // the steps of a run after the lab
	for step, node := range map[int]string{exchange: "b", udp: "c", tcp: "b"} {
		p := plan(t, small)
		r := &runner{plan: p, ledger: newLedger(p), started: traffic.Now(), options: Options{Duration: 10 * time.Minute}}
		p.Traffic[0].Duration = 200 * time.Millisecond
		if step == udp {
			p.Traffic[0].Duration = 10 * time.Minute
		}
		n := -1
		var killed time.Time
		r.options.Progress = func(string) {
			if n++; n != step {
				return
			}
			pid := r.lab.Node(node).PID()
			if pid <= 1 {
				t.Fatal("no agent")
			}
			killed = time.Now()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // our child, not reaped before the lab goes down
				t.Error(err)
			}
		}
		err := r.run(t.Context())
		var ended *lab.AgentError
		if !errors.As(err, &ended) || ended.Node != node || strings.Contains(err.Error(), "\n") {
			t.Errorf("at step %d: %v", step, err)
		}
		if took := time.Since(killed); took > 2*time.Minute { // a second on an idle machine
			t.Errorf("at step %d: it took %v to end", step, took)
		}
	}
}

// A lab that is kept goes on without a node whose agent ended, and tells of it.
func TestHoldAgentKilled(t *testing.T) {
	owner.Check(t)
	l, err := Hold(t.Context(), plan(t, small), lab.Options{Log: os.Stderr}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	s, err := l.Status(t.Context())
	if err != nil || s.Nodes[1].Error != "" || s.Nodes[1].PID <= 1 {
		t.Fatalf("%+v, %v", s.Nodes, err)
	}
	if err := syscall.Kill(s.Nodes[1].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if s, err = l.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Nodes[1].PID == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", s.Nodes[1])
		}
	}
	if b := s.Nodes[1]; b.Name != "b" || !strings.Contains(b.Error, "node b") || !strings.Contains(b.Error, "killed") {
		t.Errorf("%+v", b)
	}
	if a := s.Nodes[0]; a.Error != "" || a.PID == 0 || len(s.Links) != 2 {
		t.Errorf("%+v", a)
	}
	if vpn := s.Tunnels[0]; !strings.Contains(vpn.Error, "node b") || len(vpn.SAs) != 2 { // of the end that is there
		t.Errorf("%+v", vpn)
	}
}

// A directory for captures that cannot be used is an error before anything is made.
func TestCaptureDirectory(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o644), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		dir  string
		want error
	}{
		"foreign":      {foreign, report.ErrForeign},
		"a file":       {file, nil},
		"below a file": {filepath.Join(file, "captures"), nil},
	} {
		_, err := Do(t.Context(), plan(t, small), Options{Capture: tt.dir, Progress: func(s string) { t.Errorf("%s: %s", name, s) }})
		if err == nil || !strings.Contains(err.Error(), tt.dir) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hanging := filepath.Join(dir, "hanging")
	if err := os.Symlink("nowhere", hanging); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{hanging, filepath.Join(hanging, "captures")} {
		if _, err := Do(t.Context(), plan(t, small), Options{Capture: d, Progress: func(s string) { t.Errorf("%s: %s", d, s) }}); err == nil || !strings.Contains(err.Error(), d) {
			t.Errorf("%s: %v", d, err)
		}
	}
	if left, err := os.ReadDir(foreign); err != nil || len(left) != 1 {
		t.Errorf("the foreign directory holds %v, %v", left, err)
	}
}

// A disk that is full costs the captures and not the run.
func TestFullDisk(t *testing.T) {
	owner.Check(t)
	spaces, err := netns.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer spaces[0].Close()
	r := &runner{}
	var recordings []recording
	for _, link := range []string{"ab", "bc"} {
		full, err := capture.Create("/dev/full", 0)
		if err != nil {
			t.Fatal(err)
		}
		file := capture.NewFile(full, "")
		c, err := capture.Open(spaces[0], "lo", capture.Options{File: file})
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Flush(); !errors.Is(err, unix.ENOSPC) { // so that the packet's writing fails, and not only the end's
			t.Fatal(err)
		}
		recordings = append(recordings, recording{link, full, file, []*capture.Tap{c}})
	}
	if err := spaces[0].Do(func() error {
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("packet"))
		return errors.Join(err, c.Close())
	}); err != nil {
		t.Fatal(err)
	}
	r.stopRecordings(recordings)
	if len(r.result.Checks) != 1 || r.result.Checks[0].OK || len(r.result.Captures) != 2 {
		t.Fatalf("%+v", r.result)
	}
	detail := r.result.Checks[0].Detail
	if !strings.Contains(detail, "ab, bc") || strings.Count(detail, unix.ENOSPC.Error()) != 1 || strings.Contains(detail, "\n") {
		t.Error(detail)
	}
}

// Who changes a link is told of his own change, whoever else changes it meanwhile.
func TestSetLinkTogether(t *testing.T) {
	owner.Check(t)
	p, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab")).Plan()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Hold(t.Context(), p, lab.Options{Log: os.Stderr, Shaper: "wire"}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			want := time.Duration(i+1) * time.Millisecond
			got, err := l.SetLink(t.Context(), "ab", "", []string{"delay=" + want.String()})
			if err != nil || got.Name != "ab" || got.FromA.Delay != want || got.FromB.Delay != want {
				t.Errorf("%v: %+v, %v", want, got, err)
			}
		})
	}
	all.Wait()
}

// A disk that is full from the start costs the captures too, and not the run; nothing is left of them.
func TestDoFullDisk(t *testing.T) {
	owner.Check(t)
	disk := t.TempDir()
	err := netns.OnThread(func() error { // whose mounts are its own
		err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 64<<10), 0o600); err != nil {
			return err
		}
		result, err := Do(t.Context(), plan(t, small), Options{
			Lab: lab.Options{Log: os.Stderr, Dataplane: probe.Gateway}, Duration: 100 * time.Millisecond, Capture: filepath.Join(disk, "deep", "captures"), ExportKeys: true,
		})
		if err != nil {
			return err
		}
		told := false
		for _, c := range result.Checks {
			if c.Name != capturesCheck {
				continue
			}
			if told = true; c.OK || strings.Count(c.Detail, unix.ENOSPC.Error()) != 1 {
				t.Errorf("%+v", c)
			}
		}
		if !told || len(result.Traffic) != 2 || len(result.Captures) != 0 {
			t.Errorf("%+v", result)
		}
		if left, err := os.ReadDir(disk); err != nil || len(left) != 1 {
			t.Errorf("the disk holds %v, %v", left, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A lab that cannot be made is an error, not a result.
func TestDoWithoutALab(t *testing.T) {
	owner.Check(t)
	if _, err := Do(t.Context(), plan(t, small), Options{Lab: lab.Options{Shaper: "magic"}}); err == nil {
		t.Error("a shaper that is not known")
	}
}

func TestHold(t *testing.T) {
	owner.Check(t)
	p := plan(t, small)
	l, err := Hold(t.Context(), p, lab.Options{Log: os.Stderr, Dataplane: probe.Gateway}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		if err := l.Down(context.Background()); err != nil {
			t.Errorf("second down: %v", err)
		}
	}()
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Topology != "small" || time.Since(s.Since) > time.Hour || len(s.Nodes) != 3 || len(s.Links) != 2 || len(s.Tunnels) != 1 {
		t.Fatalf("status %+v", s)
	}
	for i, n := range s.Nodes {
		if n.Name != p.Nodes[i].Name || n.Kind != "host" || n.PID <= 0 || len(n.Addresses) == 0 || n.CPU <= 0 {
			t.Errorf("node %+v", n)
		}
	}
	if ab := s.Links[0]; ab.Name != "ab" || ab.Kind != "fibre" || ab.A == "" || ab.B == "" || ab.Shaper != "none" {
		t.Errorf("link %+v", ab)
	}
	for name, tt := range map[string]struct {
		link, from string
		want       error
	}{"no link": {"xx", "", supervisor.ErrNoLink}, "no end": {"ab", "xx", supervisor.ErrNoLink}} {
		if _, err := l.SetLink(t.Context(), tt.link, tt.from, []string{"delay=1ms"}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.SetLink(t.Context(), "ab", "", []string{"delay=1"}); !errors.Is(err, supervisor.ErrInput) {
		t.Errorf("no unit: %v", err)
	}
	tunnel := s.Tunnels[0]
	if tunnel.Name != "vpn" || tunnel.A != "a" || tunnel.B != "b" || tunnel.Suite != "dilithium2+kyber512" || tunnel.Rekeys != 0 || tunnel.Error != "" ||
		!strings.HasPrefix(tunnel.Dataplane, "gateway/") || len(tunnel.SAs) != 4 || len(tunnel.Drops) == 0 {
		t.Errorf("tunnel %+v", tunnel)
	}
	for i, sa := range tunnel.SAs {
		if sa.Node != []string{"a", "a", "b", "b"}[i] || sa.Direction != []string{"in", "out", "in", "out"}[i] || sa.SPI < 256 {
			t.Errorf("SA %+v", sa)
		}
	}
	if tunnel.SAs[0].SPI != tunnel.SAs[3].SPI || tunnel.SAs[1].SPI != tunnel.SAs[2].SPI {
		t.Errorf("SAs %+v", tunnel.SAs)
	}

	if _, err := l.Exec(t.Context(), "nobody", supervisor.Command{Path: "/bin/true"}); !errors.Is(err, supervisor.ErrNoNode) {
		t.Errorf("a command at a node that is not there: %v", err)
	}
	if _, err := l.(*held).lab.Tunnel("vpn").Rekey(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if s, err = l.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Tunnels[0].Rekeys == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("rekeys %d", s.Tunnels[0].Rekeys)
		}
	}
	if s.Tunnels[0].SAs[0].SPI == tunnel.SAs[0].SPI {
		t.Error("the same SAs after a rekey")
	}
}

func TestHoldCancelled(t *testing.T) {
	owner.Check(t)
	for step := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		n := -1
		_, err := Hold(ctx, plan(t, small), lab.Options{}, func(string) {
			if n++; n == step {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("at step %d: %v", step, err)
		}
	}
}
