package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/guest"
)

func TestMain(m *testing.M) {
	guest.Main() // this program is the first process of the guests that it starts
	if filepath.Base(os.Args[0]) == qemuProgram {
		fake()
	}
	if os.Getenv(runMark) != "" {
		os.Exit(runFake())
	}
	os.Exit(m.Run())
}

// value returns what follows a flag, for each time that it is there.
func value(args []string, flag string) (all []string) {
	for i, a := range args[:len(args)-1] {
		if a == flag {
			all = append(all, args[i+1])
		}
	}
	return all
}

func TestArgs(t *testing.T) {
	t.Parallel()
	s := spec{
		accel: TCG, kernel: "/k", initrd: "/proc/self/fd/4", memory: 300<<20 + 1, port: 3,
		shares: []channel.Share{{Tag: "share0", Path: "/a,b"}, {Tag: "share1", Path: "/c d"}},
	}
	args := s.args()
	for flag, want := range map[string]string{
		"-accel": "tcg,thread=single", "-cpu": "max,-cx16", "-smp": "1", "-m": "301M", "-kernel": "/k", "-initrd": "/proc/self/fd/4",
	} {
		if got := value(args, flag); !slices.Equal(got, []string{want}) {
			t.Errorf("%s %q, want %q", flag, got, want)
		}
	}
	machine := value(args, "-M")
	if len(machine) != 1 || !strings.HasPrefix(machine[0], "q35") {
		t.Errorf("machine %q", machine)
	}
	// Only the root is read-only, and a comma in a path is none between options.
	want := []string{
		"local,id=hostroot,path=/,security_model=none,multidevs=remap,readonly=on",
		"local,id=share0,path=/a,,b,security_model=none,multidevs=remap",
		"local,id=share1,path=/c d,security_model=none,multidevs=remap",
	}
	if got := value(args, "-fsdev"); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if !slices.Contains(value(args, "-chardev"), "socket,id=port,fd=3") {
		t.Errorf("%q", value(args, "-chardev"))
	}
	for _, must := range []string{"console=ttyS0", "panic=-1", guest.Mark + "=1"} {
		if !slices.Contains(strings.Fields(value(args, "-append")[0]), must) {
			t.Errorf("the kernel is not told %s", must)
		}
	}
	s.accel = KVM
	if got := s.args(); value(got, "-accel")[0] != "kvm" || value(got, "-cpu")[0] != "host" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct {
		accel            string
		cpus, host, want int
	}{{TCG, 0, 8, 1}, {TCG, 3, 8, 3}, {KVM, 0, 2, 2}, {KVM, 0, 64, 4}, {KVM, 7, 2, 7}} {
		if got := (spec{accel: c.accel, cpus: c.cpus}).processors(c.host); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	yes, no := func() bool { return true }, func() bool { return false }
	a := newAnswers(t.TempDir(), "/proc/self/exe")
	for _, c := range []struct {
		want   string
		usable func() bool
		tries  string
	}{{Auto, yes, "kvm tcg"}, {"", yes, "kvm tcg"}, {Auto, no, "tcg"}, {KVM, no, "kvm"}, {TCG, yes, "tcg"}} {
		if got := strings.Join(attempts(c.want, c.usable, a), " "); got != c.tries {
			t.Errorf("%s: %s, want %s", c.want, got, c.tries)
		}
	}
	a.put(true)
	if got := attempts(Auto, yes, a); !slices.Equal(got, []string{KVM}) {
		t.Errorf("known to work: %v", got)
	}
	a.put(false)
	if got := attempts(Auto, yes, a); !slices.Equal(got, []string{TCG}) {
		t.Errorf("known to hang: %v", got)
	}
	// Another start of the machine, another QEMU, or a broken file: it is tried again.
	for name, b := range map[string]answers{"boot": {a.path, "x", a.qemu}, "qemu": {a.path, a.boot, "x"}, "nowhere": {}} {
		if _, known := b.get(); known {
			t.Errorf("%s: known", name)
		}
	}
	if err := os.WriteFile(a.path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, known := a.get(); known {
		t.Error("a broken file is an answer")
	}
	answers{path: "/proc/none/kvm.json"}.put(true) // cannot be kept, and is no harm
}

func TestShares(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"a/b", "ab", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("a", filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir    string
		shares []string
		want   string // below dir; "-" is an error
	}{
		{"work", nil, "work"}, {"work", []string{"a"}, "a work"}, {"work", []string{"work"}, "work"},
		{"a/b", []string{"a", "ab"}, "a ab"}, {"link/b", nil, "a/b"}, {"work", []string{"link", "a/b"}, "a work"},
		{"work", []string{"none"}, "-"}, {"work", []string{"file"}, "-"}, {"none", nil, "-"},
		{"work", []string{"/"}, "-"}, {"work", []string{"/proc"}, "-"}, {"work", []string{"/dev/shm"}, "-"}, {"/", nil, ""}, {"/sys/fs", nil, ""},
	} {
		abs := func(p string) string {
			if filepath.IsAbs(p) {
				return p
			}
			return filepath.Join(dir, p)
		}
		config := Config{Dir: abs(c.dir)}
		for _, s := range c.shares {
			config.Shares = append(config.Shares, abs(s))
		}
		all, err := config.shares()
		var got []string
		for i, s := range all {
			rel, _ := filepath.Rel(dir, s.Path)
			got = append(got, rel)
			if s.Tag != fmt.Sprintf("share%d", i) {
				t.Errorf("tag %s", s.Tag)
			}
		}
		if text := strings.Join(got, " "); (err != nil) != (c.want == "-") || err == nil && text != c.want {
			t.Errorf("%s with %q: %s, %v, want %s", c.dir, c.shares, text, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := Config{Args: []string{"true"}, Dir: t.TempDir(), Memory: 512 << 20}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"no command": func(c *Config) { c.Args = nil }, "memory": func(c *Config) { c.Memory = 64 << 20 }, "cpus": func(c *Config) { c.CPUs = -1 },
		"accel": func(c *Config) { c.Accel = "xen" }, "timeout": func(c *Config) { c.Timeout = -1 }, "share": func(c *Config) { c.Shares = []string{"/none"} },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for _, c := range []struct {
		keys string // a dot is 400 ms
		want bool
	}{
		{"]]]", true}, {"]].]", true}, {"a]]]", true}, {"]]", false}, {"]a]]", false}, {"]...]]", false}, {"]..].]", false}, {"]]...]]]", true}, {"abc", false},
	} {
		var e escape
		got, now := false, start
		for _, k := range c.keys {
			switch k {
			case '.':
				now = now.Add(400 * time.Millisecond)
			case ']':
				got = got || e.seen([]byte{escapeKey}, now)
			default:
				got = got || e.seen([]byte{byte(k)}, now)
			}
		}
		if got != c.want {
			t.Errorf("%s: %v", c.keys, got)
		}
	}
	var e escape
	if !e.seen([]byte("x\x1d\x1d\x1dy"), start) {
		t.Error("pasted at once it is not seen")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, kind := range []error{ErrQEMU, ErrKVM, ErrBoot, ErrFiles, ErrModules, ErrHost} {
		e := &Error{Kind: kind, Err: unix.ENOENT, Remedy: "do this", Console: "panic\n"}
		if !errors.Is(e, kind) || !errors.Is(e, unix.ENOENT) || !errors.Is(e, errors.ErrUnsupported) {
			t.Errorf("%v", e)
		}
	}
	for _, kind := range []error{ErrCommand, ErrDied, ErrTimeout, ErrStopped} {
		if e := (&Error{Kind: kind}); !errors.Is(e, kind) || errors.Is(e, errors.ErrUnsupported) {
			t.Errorf("%v", e)
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	tail := newTail(10)
	var all []byte
	for n := range 30 {
		b := []byte(strings.Repeat(string(rune('a'+n)), n))
		all = append(all, b...)
		if k, err := tail.Write(b); k != n || err != nil {
			t.Fatal(k, err)
		}
		if got, want := tail.text(), string(all[max(0, len(all)-10):]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The kernel's reason is shown however long the traces after it are.
func TestLastWords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("trace\n", 3*consoleLines)
	last := strings.TrimSuffix(strings.Repeat("trace\n", consoleLines), "\n")
	for text, want := range map[string]string{
		"":                "",
		"a\nb\n":          "a\nb",
		"before\n" + long: last,
		"before\n" + long + "[    2.1] Kernel panic - not syncing: x\n" + long:       "[    2.1] Kernel panic - not syncing: x\n" + strings.TrimSuffix(long, "\n"),
		"[    2.1] BUG: kernel NULL pointer\nOops: 0002 [#1]\nKernel panic\n" + long: "[    2.1] BUG: kernel NULL pointer\nOops: 0002 [#1]\nKernel panic\n" + strings.TrimSuffix(long, "\n"),
		"Oops: 0002 [#1]\nend\n":                      "Oops: 0002 [#1]\nend",
		long + "no panic, nor a DEBUG: line\n" + last: last,
	} {
		if got := lastWords(text); got != want {
			t.Errorf("of %.60q: %.60q, want %.60q", text, got, want)
		}
	}
}
