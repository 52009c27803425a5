package nodes

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// ledger is a journal in memory, and watches that what is recorded is not there yet.
type ledger struct {
	mu      sync.Mutex
	t       testing.TB
	fail    int // the n-th Record fails; 0: none
	records int
	entries []string
}

var errFull = errors.New("journal is full")

func (l *ledger) Record(kind, path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := os.Lstat(path); err == nil {
		l.t.Errorf("%s was made before it was recorded", path)
	}
	if l.records++; l.records == l.fail {
		return errFull
	}
	l.entries = append(l.entries, kind+" "+path)
	return nil
}

func (l *ledger) Forget(kind, path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := os.Lstat(path); err == nil {
		l.t.Errorf("%s was forgotten before it was removed", path)
	}
	i := slices.Index(l.entries, kind+" "+path)
	if i < 0 {
		l.t.Errorf("%s was forgotten and never recorded", path)
		return nil
	}
	l.entries = slices.Delete(l.entries, i, i+1)
	return nil
}

// capped gives a cgroup that the test's end removes, leaving nothing.
func capped(t testing.TB, profile Profile) (*Cgroup, *ledger) {
	t.Helper()
	journal := &ledger{t: t}
	c, err := NewCgroup("lab", strings.ReplaceAll(t.Name(), "Test", ""), profile, journal)
	if errors.Is(err, ErrNoCgroup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	paths := slices.Clone(c.paths)
	t.Cleanup(func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
		for _, path := range paths {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left (%v)", path, err)
			}
		}
		if len(journal.entries) > 0 {
			t.Errorf("the journal keeps %q", journal.entries)
		}
	})
	return c, journal
}

// inside runs a script in the cgroup.
func inside(t testing.TB, ns *netns.Namespace, c *Cgroup, script string, change ...func(*Command)) *Process {
	t.Helper()
	cmd := Command{Path: "sh", Args: []string{"-c", script}, Stderr: os.Stderr}
	for _, f := range change {
		f(&cmd)
	}
	p, err := Start(ns, c, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(unix.SIGKILL)
		p.Wait()
	})
	return p
}

func TestProcessStartsInItsCgroup(t *testing.T) {
	ns := spaces(t, 1)[0]
	c, journal := capped(t, Profile{Cores: 2, Share: 0.5})
	if len(journal.entries) != len(c.paths) || len(c.paths) == 0 {
		t.Errorf("made %q, recorded %q", c.paths, journal.entries)
	}
	for _, path := range c.paths {
		if !slices.Contains(journal.entries, JournalKind+" "+path) {
			t.Errorf("%s is not in the journal", path)
		}
		if want := fmt.Sprintf("pqlab-%d-", os.Getpid()); !strings.HasPrefix(filepath.Base(path), want) {
			t.Errorf("%s is not named %s…", path, want)
		}
	}
	r, w := pipe(t)
	p := inside(t, ns, c, "cat /proc/self/cgroup", func(cmd *Command) { cmd.Stdout = w })
	w.Close()
	got, err := io.ReadAll(r)
	if err := errors.Join(err, p.Wait()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(got), filepath.Base(c.paths[0])); n != len(c.paths) {
		t.Errorf("the process is in\n%swant %d times %s", got, len(c.paths), filepath.Base(c.paths[0]))
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || strings.Contains(string(own), "pqlab-") {
		t.Errorf("the test itself is in %s (%v)", own, err)
	}
	for _, path := range c.paths {
		if tasks, _ := os.ReadFile(filepath.Join(path, "tasks")); len(tasks) > 0 {
			t.Errorf("left in %s: %q", path, tasks)
		}
	}
}

func TestCapAndUsage(t *testing.T) {
	ns := spaces(t, 1)[0]
	c, _ := capped(t, Profile{Cores: 2, Share: 0.1}) // 20 ms of CPU in 100 ms
	before, err := c.CPU()
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	// Two busy processes, one of them a grandchild that leaves its group.
	inside(t, ns, c, `setsid sh -c 'while :; do :; done' & while :; do :; done`)
	var used time.Duration
	eventually(t, "200 ms of CPU used", func() bool {
		cpu, err := c.CPU()
		if err != nil {
			t.Fatal(err)
		}
		used = cpu.User + cpu.System - before.User - before.System
		return used > 200*time.Millisecond
	})
	// One period's worth may be used at the start, and each CPU may overdraw by a slice.
	if share := used.Seconds() / time.Since(from).Seconds(); share > 0.3 {
		t.Errorf("used %v in %v: a share of %.2f, cap 0.2", used, time.Since(from), share)
	}
}

// What would be over within the quota of all cores is held back by that of one.
func TestCapOfOneCore(t *testing.T) {
	ns := spaces(t, 1)[0]
	profile := Profile{Name: "slow", Cores: 100, Share: 0.1}
	c, _ := capped(t, profile)
	if err := c.CapCore(profile); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	inside(t, ns, c, `while :; do :; done`)
	var used time.Duration
	eventually(t, "100 ms of CPU used", func() bool {
		cpu, err := c.CPU()
		if err != nil {
			t.Fatal(err)
		}
		used = cpu.User + cpu.System
		return used > 100*time.Millisecond
	})
	// A clock tick of at most 10 ms may be overdrawn.
	if share := (used - 10*time.Millisecond).Seconds() / time.Since(from).Seconds(); share > 0.13 {
		t.Errorf("used %v in %v: a share of %.2f, cap 0.1", used, time.Since(from), share)
	}
	if got := (Profile{Share: 0.01}).coreQuota(); got != time.Millisecond {
		t.Errorf("a quota of %v, which the kernel refuses", got)
	}
}

func TestKillReachesThoseWhoLeftTheGroup(t *testing.T) {
	ns := spaces(t, 1)[0]
	c, _ := capped(t, Profile{Cores: 1, Share: 1})
	r, w := pipe(t)
	p := inside(t, ns, c, `setsid sh -c 'echo $$; exec sleep 1000' & wait`, func(cmd *Command) { cmd.Stdout = w })
	child := readPid(t, r)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	eventually(t, "all are gone", func() bool { return gone(child) && gone(p.Pid()) })
	// capped's cleanup proves that Remove itself ends what is started now.
	inside(t, ns, c, `setsid sleep 1000 & sleep 1000`)
}

func TestCgroupLeavesNothingOnError(t *testing.T) {
	capped(t, Profile{Cores: 1, Share: 1}) // skips without the right
	for fail := 1; fail <= 2; fail++ {
		journal := &ledger{t: t, fail: fail}
		c, err := NewCgroup("lab", "full", Profile{Cores: 1, Share: 1}, journal)
		if err == nil { // version 2 has one entry
			c.Remove()
		} else if !errors.Is(err, errFull) {
			t.Error(err)
		}
		if len(journal.entries) > 0 {
			t.Errorf("the journal keeps %q", journal.entries)
		}
	}
	// Somebody else's directory is not taken over.
	a, err := NewCgroup("lab", "same", Profile{Cores: 1, Share: 1}, &ledger{t: t})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Remove()
	if _, err := NewCgroup("lab", "same", Profile{Cores: 1, Share: 1}, quietLedger{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second of the same name: %v", err)
	}
	if _, err := os.Lstat(a.paths[0]); err != nil {
		t.Errorf("the second took the first away: %v", err)
	}
}

// quietLedger remembers nothing.
type quietLedger struct{}

func (quietLedger) Record(string, string) error { return nil }
func (quietLedger) Forget(string, string) error { return nil }

func TestNoCgroupWithoutTheRight(t *testing.T) {
	if unix.Access("/sys/fs/cgroup/cpu", unix.W_OK) == nil || unix.Access("/sys/fs/cgroup", unix.W_OK) == nil {
		t.Skip("may make cgroups here")
	}
	journal := &ledger{t: t}
	c, err := NewCgroup("lab", "refused", Profile{Cores: 1, Share: 1}, journal)
	if err == nil {
		c.Remove()
		t.Skip("a cgroup is delegated here")
	}
	if !errors.Is(err, ErrNoCgroup) {
		t.Error(err)
	}
	if len(journal.entries) > 0 {
		t.Errorf("the journal keeps %q", journal.entries)
	}
}

// hierarchy is a cgroup file system as files: a directory for each, with its control files.
func hierarchy(t *testing.T, groups map[string]map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for dir, files := range groups {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(root, dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestDelegated(t *testing.T) {
	group := func(controllers, enabled, procs string) map[string]string {
		return map[string]string{
			"cgroup.controllers": controllers, "cgroup.subtree_control": enabled, "cgroup.procs": procs, "cgroup.type": "domain",
		}
	}
	root := func(enabled string) map[string]string {
		g := group("cpu memory", enabled, "1 2 3")
		delete(g, "cgroup.type")
		return g
	}
	locked := map[string]string{"cgroup.controllers": "cpu", "cgroup.subtree_control": "cpu"} // no cgroup.procs to write
	for name, tt := range map[string]struct {
		groups map[string]map[string]string
		own    string
		want   string // empty: none
	}{
		"delegated scope's slice":  {map[string]map[string]string{"a/slice/scope": group("cpu", "", "77"), "a/slice": group("cpu", "", ""), "a": locked, "/": locked}, "/a/slice/scope", "/a/slice"},
		"children have it already": {map[string]map[string]string{"a/scope": group("cpu", "cpu", "77")}, "/a/scope", "/a/scope"},
		"root, from the top":       {map[string]map[string]string{"/": root("")}, "/", "/"},
		"root, from a session":     {map[string]map[string]string{"/": root("cpu"), "u": group("memory", "", ""), "u/s": group("memory", "", "9")}, "/u/s", "/"},
		"nothing delegated":        {map[string]map[string]string{"u/s": locked, "u": locked, "/": locked}, "/u/s", ""},
		"a container's own root":   {map[string]map[string]string{"/": group("cpu", "", "1 2")}, "/", ""},
		"no controller":            {map[string]map[string]string{"/": group("memory", "", "")}, "/", ""},
	} {
		got, err := delegated(hierarchy(t, tt.groups), tt.own)
		if got != tt.want || (tt.want == "") != errors.Is(err, ErrNoCgroup) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestProfiles(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Profiles() {
		got, err := ProfileByName(p.Name)
		if err != nil || got != p {
			t.Errorf("%s: %+v, %v", p.Name, got, err)
		}
		if seen[p.Name] || p.Cores < 1 || p.Share <= 0 || p.Share > 1 || p.Source == "" {
			t.Errorf("%+v", p)
		}
		seen[p.Name] = true
		if want := time.Duration(float64(p.Cores) * p.Share * 1e8).Round(time.Millisecond); p.quota().Round(time.Millisecond) != want {
			t.Errorf("%s: quota %v, want %v", p.Name, p.quota(), want)
		}
	}
	for _, name := range []string{"xeon", "jetson-nano", "bluefield-2", "bluefield-3", "raspberry-pi-4"} {
		if !seen[name] {
			t.Errorf("no %s", name)
		}
	}
	if _, err := ProfileByName("blufield-3"); !errors.Is(err, ErrUnknownProfile) || !strings.Contains(err.Error(), "bluefield-3") {
		t.Errorf("misspelt: %v", err)
	}
}

// On a unified hierarchy without the CPU controller everything but the cap can be shown.
func TestV2OnAHybridMachine(t *testing.T) {
	if cgroups.Mode() != cgroups.Hybrid {
		t.Skip("cgroups here are not hybrid: the other tests show version 2 or 1 in full")
	}
	const mount = "/sys/fs/cgroup/unified"
	if unix.Access(mount, unix.W_OK) != nil {
		t.Skip("may not write ", mount)
	}
	path := filepath.Join(mount, fmt.Sprintf("pqlab-%d-v2", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	journal := &ledger{t: t, entries: []string{JournalKind + " " + path}}
	manager, err := cgroup2.Load("/"+filepath.Base(path), cgroup2.WithMountpoint(mount))
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup{paths: []string{path}, control: &v2{manager, dir}, journal: journal}
	r, w := pipe(t)
	p := inside(t, spaces(t, 1)[0], c, `setsid sh -c 'echo $$; exec sleep 1000' & wait`, func(cmd *Command) { cmd.Stdout = w })
	child := readPid(t, r)
	for _, pid := range []int{p.Pid(), child} {
		at, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || !strings.Contains(string(at), "0::/"+filepath.Base(path)+"\n") {
			t.Errorf("process %d is in\n%s(%v)", pid, at, err)
		}
	}
	if _, err := c.CPU(); err != nil {
		t.Error(err)
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	eventually(t, "all are gone", func() bool { return gone(child) && gone(p.Pid()) })
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) || len(journal.entries) > 0 {
		t.Errorf("left: %v, %q", err, journal.entries)
	}
}

// The names that a topology may use are those of the profiles.
func TestProfileNames(t *testing.T) {
	t.Parallel()
	var names []string
	for _, p := range Profiles() {
		names = append(names, p.Name)
	}
	if known := topology.Profiles(); !slices.Equal(names, known) {
		t.Errorf("profiles are %v, a topology knows %v", names, known)
	}
}
