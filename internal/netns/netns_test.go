package netns

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// make1 gives a namespace that the test's end closes.
func make1(t testing.TB) *Namespace {
	t.Helper()
	nss, err := New(1)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("needs CAP_SYS_ADMIN (root, or unshare -Urn): ", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { nss[0].Close() })
	return nss[0]
}

// entries counts the names in a directory.
func entries(t testing.TB, dir string) int {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// eventually polls cond.
func eventually(t testing.TB, cond func() bool) bool {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if cond() {
			return true
		}
		runtime.Gosched()
	}
	return false
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestDoIsInsideAndLeavesNoThread(t *testing.T) {
	ns := make1(t)
	home := inode(t, "/proc/self/ns/net")
	if ns.Inode() == home {
		t.Fatal("new namespace is the current one")
	}
	cur, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer cur.Close()
	if cur.Inode() != home {
		t.Errorf("Current is %d, want %d", cur.Inode(), home)
	}
	var mu sync.Mutex
	tids := map[int]bool{}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := ns.Do(func() error {
				if got := inode(t, "/proc/thread-self/ns/net"); got != ns.Inode() {
					t.Errorf("inside is %d, want %d", got, ns.Inode())
				}
				if unix.Gettid() == unix.Getpid() {
					t.Error("f runs on the main thread, which cannot end")
				}
				mu.Lock()
				tids[unix.Gettid()] = true
				mu.Unlock()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Every thread that was inside must end: one that lived on could run other goroutines there.
	if !eventually(t, func() bool {
		for tid := range tids {
			if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid)); err == nil && inodeOf("/proc/self/task/"+strconv.Itoa(tid)+"/ns/net") == ns.Inode() {
				return false
			}
		}
		return true
	}) {
		t.Error("a thread stayed in the namespace")
	}
	if got := inode(t, "/proc/self/ns/net"); got != home {
		t.Errorf("the main thread is in %d, want %d", got, home)
	}
}

func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

func TestDoReturnsTheError(t *testing.T) {
	ns := make1(t)
	want := errors.New("mine")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Goexit inside gave no error")
	}
}

func TestFreshNamespaceIsUsable(t *testing.T) {
	ns := make1(t)
	err := ns.Do(func() error {
		for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			c.Close()
			l.Close()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSetIsOfThisNamespaceOnly(t *testing.T) {
	a, b := make1(t), make1(t)
	const key = "net/ipv4/ip_forward"
	read := func(ns *Namespace) (value string) {
		if err := ns.Do(func() error {
			d, err := os.ReadFile("/proc/sys/" + key)
			value = string(d)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return value
	}
	before := read(b)
	if before != "0\n" {
		t.Fatalf("a fresh namespace forwards: %q", before)
	}
	if err := a.Set(Sysctl{key, "1"}); err != nil {
		t.Fatal(err)
	}
	if got := read(a); got != "1\n" {
		t.Errorf("a: %q", got)
	}
	if got := read(b); got != before {
		t.Errorf("b changed to %q", got)
	}
	if err := a.Set(Sysctl{"net/ipv4/no_such_key", "1"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown key: %v", err)
	}
}

func TestNetlinkActsInItsNamespace(t *testing.T) {
	a, b := make1(t), make1(t)
	ha, err := a.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := a.Netlink(); again != ha {
		t.Error("Netlink is not cached")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "only-in-a"
	if err := ha.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	has := func(ns *Namespace) (found bool) {
		if err := ns.Do(func() error {
			_, err := net.InterfaceByName("only-in-a")
			found = err == nil
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if !has(a) || has(b) {
		t.Errorf("bridge is in a: %v, in b: %v", has(a), has(b))
	}
	if _, err := ha.XfrmStateList(netlink.FAMILY_ALL); err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("XFRM: %v", err)
	}
}

func TestClose(t *testing.T) {
	before := entries(t, "/proc/self/fd")
	nss, err := New(20)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("needs CAP_SYS_ADMIN (root, or unshare -Urn): ", err)
		}
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for _, ns := range nss {
		seen[ns.Inode()] = true
		if _, err := ns.Netlink(); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != len(nss) {
		t.Errorf("%d namespaces, %d inodes", len(nss), len(seen))
	}
	for _, ns := range nss {
		for range 2 {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := ns.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Do after Close: %v", err)
		}
		if _, err := ns.Netlink(); !errors.Is(err, ErrClosed) {
			t.Errorf("Netlink after Close: %v", err)
		}
		if ns.Fd() != -1 || ns.File() != nil {
			t.Error("a descriptor after Close")
		}
	}
	// The runtime's own epoll descriptors may have come with the first netlink socket.
	if after := entries(t, "/proc/self/fd"); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestNewMakesAllOrNone(t *testing.T) {
	make1(t) // skips without the right
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	before := entries(t, "/proc/self/fd")
	low := old
	low.Cur = uint64(before + 20)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	nss, err := New(200)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) || nss != nil {
		t.Errorf("got %d namespaces, %v", len(nss), err)
	}
	// Of a handle that fails half-way the library leaves the first socket to the garbage collector.
	if !eventually(t, func() bool {
		runtime.GC()
		return entries(t, "/proc/self/fd") <= before
	}) {
		t.Errorf("%d descriptors before, %d after", before, entries(t, "/proc/self/fd"))
	}
}

func BenchmarkNew(b *testing.B) {
	make1(b)
	nss, err := New(b.N)
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	for _, ns := range nss {
		ns.Close()
	}
}

func BenchmarkDo(b *testing.B) {
	ns := make1(b)
	for b.Loop() {
		if err := ns.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(entries(b, "/proc/self/task")), "threads")
}
