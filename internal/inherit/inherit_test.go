package inherit

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv makes this program tell what it was given, on standard output, and end.
const childEnv = "PQLAB_INHERIT_CHILD"

// given is a descriptor that a child has, and the file that it is of.
type given struct {
	FD    int
	Inode uint64
}

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	all, err := listed()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listed() ([]given, error) {
	fds, err := Descriptors()
	all := []given{}
	for _, fd := range fds {
		var s unix.Stat_t
		if err := unix.Fstat(fd, &s); err != nil {
			return nil, err
		}
		all = append(all, given{fd, s.Ino})
	}
	return all, err
}

// lend opens files that a child would get, far apart, and one that none gets.
func lend(t *testing.T) (lent []given) {
	t.Helper()
	for _, least := range []int{40, 60, 61, 90} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, least)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		var s unix.Stat_t
		if err := unix.Fstat(fd, &s); err != nil {
			t.Fatal(err)
		}
		lent = append(lent, given{fd, s.Ino})
	}
	private, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { private.Close() })
	return lent
}

func TestDescriptors(t *testing.T) {
	before, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	lent := lend(t)
	after, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	want := append(before, lent...)
	slices.SortFunc(want, func(a, b given) int { return a.FD - b.FD })
	if !slices.Equal(after, want) {
		t.Errorf("%v, want %v", after, want)
	}
	if slices.ContainsFunc(after, func(g given) bool { return g.FD < 3 }) {
		t.Errorf("standard streams are among %v", after)
	}
}

// A child has what it was to get, each under its number and of the same file, and nothing else.
func TestChild(t *testing.T) {
	lend(t)
	all, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files func(stdout uintptr) ([]uintptr, error)
		want  []given
	}{
		"All": {func(stdout uintptr) ([]uintptr, error) {
			files, err := All()
			if !slices.Equal(files[:3], []uintptr{0, 1, 2}) {
				t.Errorf("standard streams are %v", files[:3])
			}
			files[1] = stdout
			return files, err
		}, all},
		"Only": {func(stdout uintptr) ([]uintptr, error) { return Only(0, stdout, 2) }, []given{}},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		files, err := c.files(w.Fd())
		if err != nil {
			t.Fatal(err)
		}
		pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{Env: append(os.Environ(), childEnv+"=1"), Files: files})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		var got []given
		if err := json.NewDecoder(r).Decode(&got); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: the child has %v, want %v, %v", name, got, c.want, err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			t.Errorf("%s: %v, %v", name, status, err)
		}
	}
}
