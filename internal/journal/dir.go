package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dirs returns the directories where this user's journals may be, the preferred one first: in $XDG_RUNTIME_DIR, in /run,
// in the temporary directory.
func Dirs() []string {
	var dirs []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "pqlab"))
	}
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/run/pqlab")
	}
	// The user's number outside of a user namespace: inside everyone is 0.
	return append(dirs, filepath.Join(os.TempDir(), fmt.Sprintf("pqlab-%d", outerUID(os.Geteuid()))))
}

// Dir returns the first of Dirs that this process can use. It may not exist.
func Dir() (string, error) {
	var errs []error
	for _, dir := range Dirs() {
		root, err := openDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			err = unix.Faccessat(unix.AT_FDCWD, filepath.Dir(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
			if err == nil {
				return dir, nil
			}
			err = fmt.Errorf("make %s: %w", dir, err)
		}
		if err == nil {
			root.Close()
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no directory for journals: %w", errors.Join(errs...))
}

// outerUID returns what uid is called in the user namespace around this one.
func outerUID(uid int) int {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, n int
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &n); err == nil && inside <= uid && uid < inside+n {
			return outside + uid - inside
		}
	}
	return uid
}

// makeDir makes dir if it does not exist, and opens it.
func makeDir(dir string) (root *os.Root, err error) {
	for range 1000 { // another process that leaves it empty removes it, perhaps just now
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if root, err = openDir(dir); !errors.Is(err, fs.ErrNotExist) {
			return root, err
		}
	}
	return nil, err
}

// openDir opens dir if it is safe to keep a journal in: a directory of this user's that nobody else can enter. In /tmp
// somebody else could have made it, or a symbolic link of its name.
func openDir(dir string) (*os.Root, error) {
	before, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	bad := ""
	switch stat := before.Sys().(*syscall.Stat_t); {
	case !before.IsDir():
		bad = "it is not a directory"
	case int(stat.Uid) != os.Geteuid():
		bad = fmt.Sprintf("it belongs to user %d", stat.Uid)
	case before.Mode().Perm()&0o077 != 0:
		bad = fmt.Sprintf("others may enter it (mode %v)", before.Mode())
	}
	if bad != "" {
		return nil, fmt.Errorf("directory for journals %s: %s; remove it or set XDG_RUNTIME_DIR: %w", dir, bad, fs.ErrPermission)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if after, err := root.Stat("."); err != nil || !os.SameFile(before, after) {
		root.Close()
		return nil, fmt.Errorf("directory for journals %s: it was replaced meanwhile: %w", dir, fs.ErrPermission)
	}
	return root, nil
}

// removeDir removes the journals' directory if it is empty.
func removeDir(dir string) {
	if filepath.IsAbs(dir) && strings.Contains(filepath.Base(dir), "pqlab") {
		os.Remove(dir) // refused, unless it is empty
	}
}

// lock takes the lock on a journal, without waiting. It is held until f is closed, or the process has ended.
func lock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

// linked tells whether f is still the file of that name.
func linked(root *os.Root, name string, f *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := root.Lstat(name)
	return err == nil && os.SameFile(a, b)
}
