package hygiene

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/rootless"
)

const helper = "PQLAB_TEST_HELPER"

// inside are the tests that run in a network namespace that nobody else configures.
const inside = "PQLAB_TEST_INSIDE"

func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "sleep": // until standard input ends
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "orphan": // start one that outlives us, and tell its number
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helper+"=sleep")
		cmd.Stdin = os.Stdin
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
		fmt.Println(cmd.Process.Pid)
		os.Exit(0)
	}
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func take(t *testing.T) Snapshot {
	t.Helper()
	s, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settled gives what is owned by o to go some time to do so.
func settled(t *testing.T, before Snapshot, o Owner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	left, err := Settled(ctx, before, o)
	if err != nil || left != nil {
		t.Fatalf("%q %v", left, err)
	}
}

// leftover expects that Settled finds exactly one difference, whose text has the words, and Diff that one too.
func leftover(t *testing.T, before Snapshot, o Owner, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	left, err := Settled(ctx, before, o)
	if err != nil || len(left) != 1 {
		t.Fatalf("want one leftover: %q %v", left, err)
	}
	for _, w := range words {
		if !strings.Contains(left[0], w) {
			t.Errorf("%q lacks %q", left[0], w)
		}
	}
	if diff := Diff(before, take(t)); !slices.Contains(diff, left[0]) {
		t.Errorf("Diff %q lacks %q", diff, left[0])
	}
}

func run(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNetwork runs itself again in a namespace of its own, so that nothing else comes and goes in there.
func TestNetwork(t *testing.T) {
	if os.Getenv(inside) == "" {
		ns, err := netns.New(1)
		run(t, err)
		defer ns[0].Close()
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestNetwork$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		var out []byte
		err = ns[0].Do(func() error { out, err = cmd.CombinedOutput(); return err })
		t.Logf("%s", out)
		run(t, err)
		return
	}
	ns, err := netns.Current()
	run(t, err)
	defer ns.Close()
	h, err := ns.Netlink()
	run(t, err)
	dummy := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "left0"}, PeerName: "left1"}
	run(t, h.LinkAdd(dummy))
	// The kernel would make link-local addresses whenever it has time to.
	run(t, ns.Set(
		netns.Sysctl{Key: "net/ipv6/conf/left0/disable_ipv6", Value: "1"},
		netns.Sysctl{Key: "net/ipv6/conf/left1/disable_ipv6", Value: "1"},
	))
	run(t, h.LinkSetUp(dummy))
	peer, err := h.LinkByName("left1")
	run(t, err)
	run(t, h.LinkSetUp(peer))
	_, dst, _ := net.ParseCIDR("10.77.0.0/24")
	gw := net.ParseIP("10.76.0.1")
	addr, _ := netlink.ParseAddr("10.76.0.2/24")
	addr.Scope = unix.RT_SCOPE_UNIVERSE
	run(t, h.AddrAdd(dummy, addr))
	rule := netlink.NewRule()
	rule.Table, rule.Src, rule.Priority, rule.Family = 77, dst, 7777, netlink.FAMILY_V4
	policy := &netlink.XfrmPolicy{Src: dst, Dst: dst, Dir: netlink.XFRM_DIR_OUT, Tmpls: []netlink.XfrmPolicyTmpl{{
		Src: gw, Dst: gw, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: 0x1234,
	}}}
	larval := &netlink.XfrmState{Src: gw, Dst: gw, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL}
	nft, err := nftables.New()
	run(t, err)
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "left"}
	route := &netlink.Route{Dst: dst, Gw: gw, LinkIndex: dummy.Attrs().Index, Table: 78}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "left2"}}

	self := Owner{PID: os.Getpid()}
	for _, c := range []struct {
		words      []string
		make, undo func() error
	}{
		{[]string{"left: interface", "left2", "bridge"}, func() error { return h.LinkAdd(bridge) }, func() error { return h.LinkDel(bridge) }},
		{[]string{"left: route", "10.77.0.0/24", "10.76.0.1", "left0", "78"}, func() error { return h.RouteAdd(route) }, func() error { return h.RouteDel(route) }},
		{[]string{"left: rule", "7777", "77"}, func() error { return h.RuleAdd(rule) }, func() error { return h.RuleDel(rule) }},
		{[]string{"left: XFRM policy", "10.77.0.0/24", "out"}, func() error { return h.XfrmPolicyAdd(policy) }, func() error { return h.XfrmPolicyDel(policy) }},
		{[]string{"left: XFRM state 10.76.0.1 → 10.76.0.1", "esp", "spi 0x"}, func() error {
			x, err := netlink.XfrmStateAllocSpi(larval) // no method of a handle; the whole process is inside
			if err == nil {
				larval.Spi = x.Spi
			}
			return err
		}, func() error { return h.XfrmStateDel(larval) }},
		{[]string{"left: nftables table left"}, func() error { nft.AddTable(table); return nft.Flush() }, func() error { nft.DelTable(table); return nft.Flush() }},
		{[]string{"gone: rule", "7778"}, nil, nil},
	} {
		if c.make == nil {
			rule.Priority = 7778
			run(t, h.RuleAdd(rule))
			before := take(t)
			run(t, h.RuleDel(rule))
			leftover(t, before, self, c.words...)
			continue
		}
		before := take(t)
		run(t, c.make())
		leftover(t, before, self, c.words...)
		run(t, c.undo())
		settled(t, before, self)
	}
	before := take(t)
	second, _ := netlink.ParseAddr("10.76.0.3/32")
	run(t, h.AddrAdd(dummy, second))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	left, err := Settled(ctx, before, self)
	if err != nil || !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, "left: address 10.76.0.3/32 of left0") }) {
		t.Errorf("address: %q %v", left, err)
	}
	for _, s := range before.Unseen {
		t.Log("unseen: ", s)
	}
}

func TestNamespace(t *testing.T) {
	me := Owner{PID: os.Getpid()}
	before := take(t)
	ns, err := netns.New(1)
	run(t, err)
	defer ns[0].Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	left, err := Settled(ctx, before, me)
	run(t, err)
	// The namespace, and the descriptor that holds it; its netlink sockets may be open too.
	for _, want := range []string{
		fmt.Sprintf("left: descriptor of net:[%d]", ns[0].Inode()),
		fmt.Sprintf("left: network namespace net:[%d]", ns[0].Inode()),
	} {
		if !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Fatalf("%q lacks %q", left, want)
		}
	}
	run(t, ns[0].Close())
	settled(t, before, me)

	// A thread that stays inside, without a descriptor.
	ns, err = netns.New(1)
	run(t, err)
	release, in := make(chan struct{}), make(chan struct{})
	go func() {
		ns[0].Do(func() error { close(in); <-release; return nil })
	}()
	<-in
	inode := ns[0].Inode()
	run(t, ns[0].Close())
	left = Diff(before, take(t))
	if !slices.ContainsFunc(left, func(s string) bool {
		return strings.HasPrefix(s, fmt.Sprintf("left: network namespace net:[%d] (thread", inode))
	}) {
		t.Errorf("%q lacks the thread in net:[%d]", left, inode)
	}
	close(release)
	settled(t, before, me)
}

// child is a process in a network namespace of its own, of the given owner.
func child(t *testing.T, env string) (*exec.Cmd, func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helper+"=sleep", env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	run(t, err)
	runtime.LockOSThread()
	run(t, cmd.Start())
	end := func() { stdin.Close(); cmd.Wait(); runtime.UnlockOSThread() }
	t.Cleanup(end)
	return cmd, end
}

// What other owners have is not what is asked for; what this one's processes have is.
func TestOwners(t *testing.T) {
	before := take(t)
	mine, other := NewOwner(), NewOwner()
	inner := Owner{Token: mine.Token + "/" + "inner"}
	cmd, end := child(t, inner.Env())
	for _, o := range []Owner{mine, inner} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		left, err := Settled(ctx, before, o)
		cancel()
		run(t, err)
		for _, want := range []string{fmt.Sprintf("left: process %d ", cmd.Process.Pid), "left: network namespace net:["} {
			if !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, want) }) {
				t.Errorf("owner %v: %q lacks %q", o, left, want)
			}
		}
	}
	// The pipe is this process's, and so counts for any owner; nothing else does.
	for _, o := range []Owner{other, {PID: 1 << 22, Token: "x"}, {}} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		left, err := Settled(ctx, before, o)
		cancel()
		run(t, err)
		for _, s := range left {
			if !strings.HasPrefix(s, "left: descriptor of ") && !strings.HasPrefix(s, "left: goroutine ") {
				t.Errorf("owner %v answers for %q", o, s)
			}
		}
	}
	end()
	settled(t, before, mine)
}

// An orphan is known by its token, though it is nobody's child any more.
func TestOrphan(t *testing.T) {
	before := take(t)
	o := NewOwner()
	r, w, err := os.Pipe()
	run(t, err)
	defer w.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helper+"=orphan", o.Env())
	cmd.Stdin = r
	out, err := cmd.Output()
	run(t, err)
	r.Close()
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	run(t, err)
	w2, err := os.Open(os.DevNull) // so that the number of the closed one is in use again
	run(t, err)
	defer w2.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	left, err := Settled(ctx, before, o)
	run(t, err)
	if !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("left: process %d ", pid)) }) {
		t.Errorf("%q lacks process %d", left, pid)
	}
	w.Close()
	w2.Close()
	settled(t, before, o)
}

func TestOwn(t *testing.T) {
	o := NewOwner()
	before := take(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	run(t, err)
	leftover(t, before, o, "left: descriptor of "+f.Name())
	f.Close()
	settled(t, before, o)

	stop := make(chan struct{})
	go wait(stop)
	leftover(t, before, o, "left: goroutine started by ", "TestOwn", "hygiene_test.go", "hygiene.")
	close(stop)
	settled(t, before, o)

	// Many threads more are a leak, some are Go's reserve.
	after := before
	after.threads = before.threads + idleThreads
	if diff := Diff(before, after); len(diff) != 0 {
		t.Errorf("%q", diff)
	}
	after.threads++
	if diff := Diff(before, after); len(diff) != 1 || !strings.Contains(diff[0], "threads") {
		t.Errorf("%q", diff)
	}
}

func wait(c chan struct{}) { <-c }

func TestFiles(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	o := Owner{PID: os.Getpid()}
	dead := deadPID(t)
	parent := os.Getppid()
	run(t, os.Mkdir(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "pqlab"), 0o700))
	for _, c := range []struct {
		dir, name string
		shared    bool // others write to TMPDIR
		ours      bool
	}{
		{temp, fmt.Sprintf("pqlab-%d-x", os.Getpid()), true, true},
		{temp, fmt.Sprintf("pqlab-%d-x", dead), true, true},
		{temp, fmt.Sprintf("pqlab-%d-x", parent), true, false},
		{temp, "pqlab-x", true, false},
		{temp, "pqlab-x", false, true},
		{temp, "pqlab-12345678901", false, true}, // no process's number
		{temp, "somethingelse", false, false},
		{filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "pqlab"), fmt.Sprintf("%d-1-00-0", dead), false, true},
		{filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "pqlab"), fmt.Sprintf("%d-1-00-0", parent), false, false},
	} {
		mode := os.FileMode(0o755)
		if c.shared {
			mode = 0o1777
		}
		run(t, os.Chmod(temp, mode))
		before := take(t)
		path := filepath.Join(c.dir, c.name)
		run(t, os.WriteFile(path, nil, 0o600))
		if c.ours {
			leftover(t, before, o, "left: file "+path)
		} else {
			settled(t, before, o)
		}
		run(t, os.Remove(path))
		settled(t, before, o)
	}
}

// deadPID returns the number of a process that has ended.
func deadPID(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helper+"=sleep")
	run(t, cmd.Run())
	return cmd.Process.Pid
}

func TestCgroups(t *testing.T) {
	o := Owner{PID: os.Getpid()}
	before := take(t)
	dir := ""
	for _, parent := range []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		d := filepath.Join(parent, fmt.Sprintf("pqlab-%d-hygiene", os.Getpid()))
		if os.Mkdir(d, 0o755) == nil {
			dir = d
			break
		}
	}
	if dir == "" {
		t.Skip("no cgroup hierarchy is delegated to this user")
	}
	defer os.Remove(dir)
	leftover(t, before, o, "left: cgroup "+dir)
	run(t, os.Remove(dir))
	settled(t, before, o)
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{
		"": 0, "pqlab": 0, "pqlab-17": 17, "pqlab-17-n2": 17, "17-99-ab-0": 17, "pqlab-x17": 0, "pqlab.17.slice": 17,
		"pqlab-4194304": 4194304, "pqlab-4194305": 0, "pqlab--5": 5, "pqlab-0": 0, "pqlab-99999999999999999999-3": 3,
	} {
		if got := number(name); got != want {
			t.Errorf("number(%q) = %d, want %d", name, got, want)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for b.Loop() {
		if _, err := Take(); err != nil {
			b.Fatal(err)
		}
	}
}
