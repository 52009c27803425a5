package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/rootless"
)

const helper = "PQLAB_TEST_HELPER"

// undoTest are kinds for tests: "file" removes a file; "line" writes the path's base into the file "order" beside it.
var undoTest = Undo{
	"file": func(path string) error { return notExistIsNil(os.Remove(path)) },
	"line": func(path string) error {
		f, err := os.OpenFile(filepath.Join(filepath.Dir(path), "order"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintln(f, filepath.Base(path))
		return err
	},
	"fails": func(string) error { return errors.New("always") },
}

func TestMain(m *testing.M) {
	SweeperMain(undoTest)
	if os.Getenv(helper) != "" {
		if err := own(os.Getenv(helper), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// own records the entries "KIND:PATH" in dir, says so, and goes on until standard input ends.
func own(dir string, entries []string) error {
	j, err := Open(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		kind, path, _ := strings.Cut(e, ":")
		if err := j.Record(kind, path); err != nil {
			return err
		}
	}
	sweeper := 0
	if j.sweeper != nil {
		sweeper = j.sweeper.process.Pid
	}
	fmt.Println(j.name, sweeper)
	io.Copy(io.Discard, os.Stdin)
	return j.Close()
}

// startOwner runs own in a process.
func startOwner(t *testing.T, dir string, entries ...string) (cmd *exec.Cmd, name string, sweeper int, stdin io.Closer) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe", entries...)
	cmd.Env = append(os.Environ(), helper+"="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &name, &sweeper); err != nil {
		t.Fatal(err)
	}
	if sweeper <= 1 { // tests send it signals
		t.Fatalf("no sweeper: %s", line)
	}
	return cmd, name, sweeper, stdin
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func running(pid int) bool {
	_, ok := startTime(pid)
	return ok
}

func touch(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestJournal(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pqlab")
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if exists(dir) {
		t.Error("Open makes the directory before it is needed")
	}
	for _, p := range []string{"/a", "/b", "/a", "/c d"} {
		if err := j.Record("file", p); err != nil {
			t.Fatal(err)
		}
	}
	sweeper := j.sweeper.process.Pid
	if err := j.Forget("file", "/b"); err != nil {
		t.Fatal(err)
	}
	if err := j.Forget("file", "/b"); err == nil {
		t.Error("/b can be forgotten twice")
	}
	if err := j.Forget("line", "/a"); err == nil {
		t.Error("what was never recorded can be forgotten")
	}
	path := filepath.Join(dir, j.name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, bad := parse(string(data))
	if want := []Entry{{"file", "/a"}, {"file", "/a"}, {"file", "/c d"}}; !slices.Equal(entries, want) || bad != nil {
		t.Errorf("journal holds %v, bad %q", entries, bad)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for _, p := range []string{"/a", "/a", "/c d"} {
		if err := j.Forget("file", p); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("an empty journal has %d bytes: %v", info.Size(), err)
	}
	if err := j.Record("file", "/e"); err != nil || j.sweeper.process.Pid != sweeper {
		t.Errorf("another sweeper %v", err)
	}
	if err := j.Forget("file", "/e"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if exists(dir) || running(sweeper) {
		t.Errorf("after Close: directory %v, sweeper %v", exists(dir), running(sweeper))
	}
	if err := j.Record("file", "/a"); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestRecordRefuses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pqlab")
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, e := range []Entry{
		{"", "/a"}, {"Cgroup", "/a"}, {"c group", "/a"}, {"c\ngroup", "/a"}, {strings.Repeat("x", 33), "/a"},
		{"file", ""}, {"file", "a"}, {"file", "/a/"}, {"file", "/a/../b"}, {"file", "//a"}, {"file", "/a\n+ file /b"},
		{"file", "/a\x00"}, {"file", "/\xff"}, {"file", "/" + strings.Repeat("x", 4095)},
	} {
		if err := j.Record(e.Kind, e.Path); err == nil {
			t.Errorf("%q %q was recorded", e.Kind, e.Path)
		}
	}
	if exists(dir) {
		t.Error("a refused entry makes a journal")
	}
}

// Close leaves to the sweeper what was not forgotten.
func TestCloseUndoes(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	j, err := Open(filepath.Join(temp, "pqlab"))
	if err != nil {
		t.Fatal(err)
	}
	file := touch(t, filepath.Join(temp, "file"))
	if err := j.Record("file", file); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil || exists(file) || exists(filepath.Join(temp, "pqlab")) {
		t.Errorf("%v, file %v", err, exists(file))
	}

	j, err = Open(filepath.Join(temp, "pqlab"))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Record("fails", "/x"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err == nil || !exists(filepath.Join(temp, "pqlab", j.name)) {
		t.Errorf("what could not be undone is lost: %v", err)
	}
}

// SIGKILL leaves nothing: the sweeper works the journal off, newest first, and is gone.
func TestSweeper(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	dir := filepath.Join(temp, "pqlab")
	file := touch(t, filepath.Join(temp, "file"))
	cmd, _, sweeper, _ := startOwner(t, dir, "line:"+temp+"/1", "file:"+file, "line:"+temp+"/2", "line:"+temp+"/3")
	if !running(sweeper) {
		t.Fatal("no sweeper runs")
	}
	// It is alone in its session, in no terminal's, has nothing open but its three, and holds no directory.
	if sid, err := unix.Getsid(sweeper); err != nil || sid != sweeper {
		t.Errorf("session %d %v", sid, err)
	}
	until(t, "sweeper has closed what it has not got", func() bool {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", sweeper))
		if err != nil {
			t.Fatal(err)
		}
		return slices.EqualFunc(fds, []string{"0", "1", "2"}, func(e fs.DirEntry, s string) bool { return e.Name() == s })
	})
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", sweeper)); err != nil || cwd != "/" {
		t.Errorf("directory %s %v", cwd, err)
	}
	until(t, "sweeper ignores the signals by which people end the owner", func() bool {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", sweeper))
		_, mask, _ := strings.Cut(string(status), "SigIgn:\t")
		ignored, _ := strconv.ParseUint(strings.SplitN(mask, "\n", 2)[0], 16, 64)
		const want = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGTERM-1)
		return ignored&want == want
	})
	unix.Kill(sweeper, unix.SIGTERM)

	unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // the whole group
	cmd.Wait()
	until(t, "sweeper has ended", func() bool { return !running(sweeper) })
	if exists(file) || exists(dir) {
		t.Errorf("left: file %v, journals %v", exists(file), exists(dir))
	}
	if order, err := os.ReadFile(filepath.Join(temp, "order")); string(order) != "3\n2\n1\n" {
		t.Errorf("undone in the order %q %v", order, err)
	}
}

// Descriptors that the owner was given are not the sweeper's: a pipe ends when the owner does.
func TestSweeperInheritsNothing(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "file:"+temp+"/x")
	cmd.Env = append(os.Environ(), helper+"="+temp+"/pqlab")
	cmd.ExtraFiles = []*os.File{nil, nil, w}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var name string
	var sweeper int
	if _, err := fmt.Fscan(out, &name, &sweeper); err != nil {
		t.Fatal(err)
	}
	if sweeper <= 1 {
		t.Fatalf("sweeper %d", sweeper)
	}
	// Stopped, it cannot have ended either.
	unix.Kill(sweeper, unix.SIGSTOP)
	defer unix.Kill(sweeper, unix.SIGCONT)
	cmd.Process.Kill()
	r.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the sweeper holds the owner's descriptor: %v", err)
	}
	unix.Kill(sweeper, unix.SIGCONT)
	cmd.Wait()
	until(t, "sweeper has ended", func() bool { return !running(sweeper) })
}

// A sweeper that is started from inside a node's namespace is not in it.
func TestSweeperNamespace(t *testing.T) {
	t.Parallel()
	ns, err := netns.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer ns[0].Close()
	j, err := Open(filepath.Join(t.TempDir(), "pqlab"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ns[0].Do(func() error { return j.Record("file", "/nonexistent/x") }); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", j.sweeper.process.Pid))
	mine, _ := os.Readlink("/proc/self/ns/net")
	if err != nil || theirs != mine {
		t.Errorf("sweeper in %s, process in %s: %v", theirs, mine, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// When the sweeper is killed too, the next start repairs.
func TestRepair(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	dir := filepath.Join(temp, "pqlab")
	file := touch(t, filepath.Join(temp, "file"))
	dead, name, sweeper, _ := startOwner(t, dir, "line:"+temp+"/1", "file:"+file, "line:"+temp+"/2")
	_, living, _, _ := startOwner(t, dir, "line:"+temp+"/never")
	unix.Kill(sweeper, unix.SIGKILL)
	until(t, "sweeper has ended", func() bool { return !running(sweeper) })

	if r, err := Repair(dir, undoTest); err != nil || len(r.Owners) != 0 || !exists(file) {
		t.Fatalf("repaired after a living owner: %+v %v", r, err)
	}
	dead.Process.Kill()
	dead.Wait()

	// Garbage at the end, as of a crash in the middle of a line or of a disk that lied.
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("garbage\n+ file relative\n\x00\xff\n+ line " + temp + "/cut")
	f.Close()

	r, err := Repair(dir, undoTest)
	want := []Entry{{"line", temp + "/2"}, {"file", file}, {"line", temp + "/1"}}
	if err != nil || !slices.Equal(r.Undone, want) || len(r.Bad) != 3 || !slices.Equal(r.Owners, []int{dead.Process.Pid}) {
		t.Errorf("%+v %v", r, err)
	}
	order, _ := os.ReadFile(filepath.Join(temp, "order"))
	if exists(file) || exists(filepath.Join(dir, name)) || string(order) != "2\n1\n" {
		t.Errorf("file %v, order %q", exists(file), order)
	}
	if !exists(filepath.Join(dir, living)) {
		t.Error("a living owner's journal was removed")
	}
}

func TestRepairWhose(t *testing.T) {
	t.Parallel()
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	reused, otherBoot := me, me
	reused.started-- // a process that had our number before us
	otherBoot.boot = strings.Repeat("0", 32)
	for _, c := range []struct {
		name           string
		undone, remove bool
	}{
		{me.String(), false, false},
		{reused.String(), true, true},
		{otherBoot.String(), false, true},
		{"0" + reused.String(), false, false}, // not a name that we give
		{"notes.txt", false, false},
		{fmt.Sprintf("-1-1-%s-0", me.boot), false, false},
	} {
		dir := filepath.Join(t.TempDir(), "pqlab")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		target := touch(t, filepath.Join(t.TempDir(), "target"))
		if err := os.WriteFile(filepath.Join(dir, c.name), []byte("+ file "+target+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Repair(dir, undoTest); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if exists(target) == c.undone {
			t.Errorf("%s: undone %v, want %v", c.name, !exists(target), c.undone)
		}
		if exists(filepath.Join(dir, c.name)) == c.remove {
			t.Errorf("%s: removed %v, want %v", c.name, !exists(filepath.Join(dir, c.name)), c.remove)
		}
		if exists(dir) == c.remove {
			t.Errorf("%s: directory is there: %v", c.name, exists(dir))
		}
	}
}

func TestRepairFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pqlab")
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	me.started--
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	file := touch(t, filepath.Join(temp, "file"))
	path := filepath.Join(dir, me.String())
	if err := os.WriteFile(path, []byte("+ file "+file+"\n+ fails /x\n+ unknown /y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// It goes on after an error, tells both, and keeps the journal.
	r, err := Repair(dir, undoTest)
	if err == nil || !strings.Contains(err.Error(), "always") || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("%v", err)
	}
	if exists(file) || len(r.Undone) != 1 || !exists(path) {
		t.Errorf("%+v, journal %v", r, exists(path))
	}
	if r, err := Repair(filepath.Join(temp, "none"), undoTest); err != nil || r.Owners != nil {
		t.Errorf("%+v %v", r, err)
	}
}

// However many repair, each entry is undone once.
func TestRepairConcurrently(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	dir := filepath.Join(temp, "pqlab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	me.started--
	const journals = 50
	for n := range journals {
		me.n = n
		if err := os.WriteFile(filepath.Join(dir, me.String()), fmt.Appendf(nil, "+ count /x/%d\n", n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	count := map[string]int{}
	undo := Undo{"count": func(path string) error {
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		count[path]++
		return nil
	}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Repair(dir, undo); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(count) != journals {
		t.Errorf("%d journals repaired, want %d", len(count), journals)
	}
	for path, n := range count {
		if n != 1 {
			t.Errorf("%s undone %d times", path, n)
		}
	}
}

// Journals come and go in one directory, which is removed by each that finds it empty.
func TestManyJournals(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pqlab")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 5 {
				j, err := Open(dir)
				if err == nil {
					err = j.Record("file", fmt.Sprintf("/nonexistent/%d", i))
				}
				if err == nil {
					_, err = Repair(dir, undoTest)
				}
				if err == nil {
					err = j.Forget("file", fmt.Sprintf("/nonexistent/%d", i))
				}
				if err == nil {
					err = j.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if exists(dir) {
		t.Error("the directory is left")
	}
}

func TestUnsafeDirectory(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	real := filepath.Join(temp, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(path string) error{
		"link":     func(path string) error { return os.Symlink(real, path) },
		"file":     func(path string) error { return os.WriteFile(path, nil, 0o700) },
		"readable": func(path string) error { return os.Mkdir(path, 0o755) },
		"group":    func(path string) error { os.Mkdir(path, 0o700); return os.Chmod(path, 0o770) },
	}
	foreign := filepath.Join(temp, "foreign")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(foreign, 65534, 65534); err == nil {
		cases["foreign"] = func(string) error { return nil }
	} else {
		t.Logf("not tried: a directory of somebody else: %v", err)
	}
	for name, prepare := range cases {
		dir := filepath.Join(temp, name)
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Open of a %s: %v", name, err)
		}
		if _, err := Repair(dir, undoTest); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Repair of a %s: %v", name, err)
		}
		j := Journal{dir: dir} // as if it had become so after Open
		if err := j.Record("file", "/x"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Record in a %s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(real); err != nil || len(entries) != 0 {
		t.Errorf("written through a link: %v %v", entries, err)
	}
}

func TestDirs(t *testing.T) {
	runtimeDir, temp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	if dir, err := Dir(); err != nil || dir != filepath.Join(runtimeDir, "pqlab") {
		t.Errorf("%s %v", dir, err)
	}
	// Somebody's else, or nobody's: the next.
	if err := os.Mkdir(filepath.Join(runtimeDir, "pqlab"), 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err := Dir(); err != nil || dir == filepath.Join(runtimeDir, "pqlab") {
		t.Errorf("%s %v", dir, err)
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	for _, dir := range Dirs() {
		if !filepath.IsAbs(dir) {
			t.Errorf("%s is not absolute", dir)
		}
	}
	last := Dirs()[len(Dirs())-1]
	if filepath.Dir(last) != temp {
		t.Errorf("%s is not in %s", last, temp)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add("+ cgroup /sys/fs/cgroup/cpu/pqlab-1\n- cgroup /sys/fs/cgroup/cpu/pqlab-1\n")
	f.Add("+ cgroup /sys/fs/cgroup/cpu/pqlab-1\n+ cgroup /sys/fs/cgr")
	f.Add("+ cgroup /sys/fs/cgroup/../../etc\n")
	f.Add("+ file /a b\n+ file /a b\n- file /a b\n\n\x00\n- nothing /x\n")
	f.Fuzz(func(t *testing.T, data string) {
		entries, bad := parse(data)
		if lines := strings.Count(data, "\n"); len(entries)+len(bad) > lines {
			t.Fatalf("%d entries and %d bad lines of %d", len(entries), len(bad), lines)
		}
		again := ""
		for _, e := range entries {
			if err := e.check(); err != nil {
				t.Fatalf("%v: %v", e, err)
			}
			again += "+ " + e.String() + "\n"
		}
		if twice, bad := parse(again); !slices.Equal(entries, twice) || bad != nil {
			t.Fatalf("%v became %v, bad %q", entries, twice, bad)
		}
		// Cut short anywhere, it has no entry that the whole has not recorded.
		recorded := map[Entry]bool{}
		for line := range strings.SplitSeq(data, "\n") {
			kind, path, _ := strings.Cut(strings.TrimPrefix(line, "+ "), " ")
			recorded[Entry{kind, path}] = true
		}
		cut, _ := parse(data[:len(data)/2])
		for _, e := range cut {
			if !recorded[e] {
				t.Fatalf("%v out of nowhere", e)
			}
		}
	})
}

func FuzzOwner(f *testing.F) {
	f.Add("1-2-0123456789abcdef0123456789abcdef-0")
	f.Add("01-2-0123456789abcdef0123456789abcdef-0")
	f.Add("../1-2-3-4")
	f.Fuzz(func(t *testing.T, name string) {
		if o, ok := parseOwner(name); ok && (o.String() != name || strings.Contains(name, "/")) {
			t.Fatalf("%q is %+v", name, o)
		}
	})
}
