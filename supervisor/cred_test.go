package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	initial := func(self uint32) identity { return identity{self: self, overflow: 65534, complete: true} }
	inner := func(self uint32) identity { return identity{self: self, overflow: 65534} }
	for _, test := range []struct {
		name   string
		id     identity
		uid    uint32
		is     bool
		serves bool
	}{
		{"myself", initial(1001), 1001, true, true},
		{"root", initial(1001), 0, false, true},
		{"another", initial(1001), 1002, false, false},
		{"root's lab, root", initial(0), 0, true, true},
		{"root's lab, another", initial(0), 1001, false, false},
		{"nobody", initial(65534), 65534, true, true},
		{"nobody, another", initial(1001), 65534, false, false},
		{"rootless, owner", inner(0), 0, true, true},
		{"rootless, unknown", inner(0), 65534, false, false},
		{"not mapped at all", inner(65534), 65534, false, false},
		{"mapped to itself, root is unknown", inner(1001), 65534, false, false},
	} {
		if is, serves := test.id.is(test.uid), test.id.serves(test.uid); is != test.is || serves != test.serves {
			t.Errorf("%s: is %v, serves %v", test.name, is, serves)
		}
	}
}

// stranger is a uid that nobody has.
const stranger = 54321

// someone gives the uid of an ordinary user: this one, or as root a uid that nobody has.
func someone() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return 54320
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be several users")
	}
}

// attributes let a program run as uid, and in a user namespace: "" in this one, "0" as root of a new one, "self" as
// oneself in a new one, "none" in a new one where nobody is mapped, which leaves the uid that this process has.
func attributes(uid int, in string) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{}
	inside := uid
	if in == "0" {
		inside = 0
	}
	if in != "" {
		a.Cloneflags = syscall.CLONE_NEWUSER
		if in != "none" {
			a.UidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: uid, Size: 1}}
			a.GidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: gidOf(uid), Size: 1}}
		}
	}
	if os.Geteuid() == 0 && uid != 0 && in != "none" {
		a.Credential = &syscall.Credential{Uid: uint32(inside), Gid: uint32(inside), NoSetGroups: in != ""}
	}
	return a
}

func gidOf(uid int) int {
	if uid == os.Geteuid() {
		return os.Getegid()
	}
	return uid
}

// superviseAs starts a supervisor as another user, without Launch: the socket is bound here and handed over.
func superviseAs(t *testing.T, uid int, in string) (name string) {
	t.Helper()
	name = unique(t)
	marks, err := os.MkdirTemp("", "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(marks, 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := claim(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	shared, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	log, err := newLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Chown(uid, -1); err != nil {
		t.Fatal(err)
	}
	cmd := program("supervise", marks, "ok")
	cmd.Env = append(os.Environ(), nameVariable+"="+name)
	cmd.ExtraFiles = []*os.File{shared, theirs}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(uid, in)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			os.RemoveAll(marks)
			t.Skipf("this user may make no user namespace: %v", err)
		}
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if !marked(marks, "down") {
			text, _ := tailLog(log, logTail)
			t.Errorf("the lab was not taken down: %s", text)
		}
		os.RemoveAll(marks)
	})
	var m startMessage
	ours.SetDeadline(time.Now().Add(2 * time.Minute))
	if err := decode(ours, &m, maxRequest); err != nil || !m.Ready {
		text, _ := tailLog(log, logTail)
		t.Fatalf("%+v, %v: %s", m, err, text)
	}
	return name
}

// ask asks for the lab's status as another user and gives the exit status of askMain.
func ask(t *testing.T, uid int, in, how, what string) int {
	t.Helper()
	cmd := program("ask", how, what)
	cmd.SysProcAttr = attributes(uid, in)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

func TestOwnerReachesLab(t *testing.T) {
	t.Parallel()
	uid := someone()
	for _, supervisor := range []string{"", "0", "self"} {
		t.Run("supervisor in "+supervisor, func(t *testing.T) {
			t.Parallel()
			if supervisor == "" && uid != os.Geteuid() {
				needRoot(t)
			}
			name := superviseAs(t, uid, supervisor)
			for _, client := range []string{"", "0", "self"} {
				if got := ask(t, uid, client, "dial", name); got != 0 {
					t.Errorf("client in %q: %d", client, got)
				}
			}
			if got := ask(t, uid, "none", "dial", name); got == 0 {
				t.Error("a client that cannot know who it is was served")
			}
		})
	}
}

func TestStrangerReachesNothing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, owner := range []int{0, someone()} {
		for _, supervisor := range []string{"", "0", "self"} {
			if owner == 0 && supervisor != "" {
				continue // a root that is root outside needs no namespace
			}
			name := superviseAs(t, owner, supervisor)
			for _, client := range []string{"", "0", "self"} {
				if got := ask(t, stranger, client, "dial", name); got != askForeign {
					t.Errorf("%d's supervisor in %q, client in %q: the client said %d", owner, supervisor, client, got)
				}
				// Nor does the supervisor serve one that asks all the same.
				if got := ask(t, stranger, client, "raw", address(0, name)); got != askDenied {
					t.Errorf("%d's supervisor in %q, client in %q: the supervisor said %d", owner, supervisor, client, got)
				}
			}
		}
	}
}

// Root reaches everybody's lab by its full name, and none of others by its bare one.
func TestRootReachesLabs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, supervisor := range []string{"", "0", "self"} {
		name := superviseAs(t, someone(), supervisor)
		if _, err := Dial(t.Context(), name); !errors.Is(err, ErrForeign) {
			t.Errorf("supervisor in %q, bare name: %v", supervisor, err)
		}
		c := dial(t, "54320/"+name)
		st, err := c.Status(t.Context())
		if err != nil || st.UID != someone() {
			t.Errorf("supervisor in %q: %+v, %v", supervisor, st, err)
		}
		if out, status, err := output(t, c, "id -u"); err != nil || status != 0 || out != map[string]string{"": "54320\n", "0": "0\n", "self": "54320\n"}[supervisor] {
			t.Errorf("supervisor in %q: %q, %d, %v", supervisor, out, status, err)
		}
		entries, err := List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, e := range entries {
			found = found || e.Name == c.name && e.Err == nil
		}
		if !found {
			t.Errorf("supervisor in %q: not in %+v", supervisor, entries)
		}
		if supervisor != "" {
			// Without becoming the owner root would be a stranger.
			if got := ask(t, 0, "", "raw", address(0, name)); got != askDenied {
				t.Errorf("supervisor in %q, root as root: %d", supervisor, got)
			}
		}
		if os.Geteuid() != 0 {
			t.Fatal("no longer root")
		}
	}
}

// What somebody else bound under one's own uid gets nothing.
func TestImpostor(t *testing.T) {
	t.Parallel()
	needRoot(t)
	name := superviseAs(t, stranger, "") // bears root's uid
	if _, err := Dial(t.Context(), name); !errors.Is(err, ErrForeign) {
		t.Errorf("Dial: %v", err)
	}
	err := Launch(t.Context(), name, []string{"supervise", t.TempDir(), "ok"}, 0, nil)
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "54321") {
		t.Errorf("Launch: %v", err)
	}
}

// The credentials of the connecting thread do not leak into others.
func TestDialAsIsOneThread(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := serve(t, &fakeLab{})
	c, err := dialAs(context.Background(), address(0, s.name), stranger)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := receive(c, new(greeting), maxReply, 0); err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil || !strings.Contains(string(b), "\nUid:\t0\t0\t0\t0\n") {
			t.Errorf("%s: %v", task, err)
		}
	}
}
