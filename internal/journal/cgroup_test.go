package journal

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// cgroupDirs returns a directory to make cgroups in, of each version that this user may use.
func cgroupDirs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, dir := range []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(dir, &stat) != nil || stat.Type != unix.CGROUP_SUPER_MAGIC && stat.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		probe := filepath.Join(dir, fmt.Sprintf("pqlab-%d-probe", os.Getpid()))
		if os.Mkdir(probe, 0o755) == nil {
			os.Remove(probe)
			dirs = append(dirs, dir)
		}
	}
	if dirs == nil {
		t.Skip("no cgroup hierarchy is delegated to this user")
	}
	return dirs
}

// occupied makes a cgroup with a process in it.
func occupied(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestRemoveCgroup(t *testing.T) {
	for _, dir := range cgroupDirs(t) {
		path := filepath.Join(dir, fmt.Sprintf("pqlab-%d-test", os.Getpid()))
		cmd := occupied(t, path)
		if err := RemoveCgroup(path); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || exists(path) {
			t.Errorf("%s: process %v, directory %v", path, err, exists(path))
		}
		if err := RemoveCgroup(path); err != nil {
			t.Errorf("again: %v", err)
		}

		// A group inside one of pqlab's is pqlab's.
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd = occupied(t, filepath.Join(path, "inner"))
		if err := RemoveCgroup(filepath.Join(path, "inner")); err != nil {
			t.Error(err)
		}
		if err := RemoveCgroup(path); err != nil {
			t.Error(err)
		}
		cmd.Wait()
	}
}

// Only ownCgroup is asked about groups with other people's processes: it changes nothing, whatever is wrong with it.
func TestOwnCgroup(t *testing.T) {
	for _, dir := range []string{"/", "/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified", "/proc/self", t.TempDir()} {
		if got, err := ownCgroup(dir); err == nil {
			t.Errorf("%s is taken for ours: %s", dir, got)
		}
	}
	if _, err := ownCgroup("/nonexistent/pqlab-1"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ownCgroup("cgroup/pqlab-1"); err == nil {
		t.Error("a relative path is taken for ours")
	}
	plain := filepath.Join(t.TempDir(), "pqlab-1", "pqlab-2")
	if err := os.MkdirAll(plain, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ownCgroup(plain); !errors.Is(err, ErrForeign) {
		t.Errorf("%s: %v", plain, err)
	}
	for _, dir := range cgroupDirs(t) {
		link := filepath.Join(t.TempDir(), "pqlab-link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		if _, err := ownCgroup(link); !errors.Is(err, ErrForeign) {
			t.Errorf("link to %s: %v", dir, err)
		}
		for name, want := range map[string]bool{"other-%d": false, "pqlab%d": false, "xpqlab-%d": false, "pqlab-%d": true} {
			path := filepath.Join(dir, fmt.Sprintf(name, os.Getpid()))
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			real, err := ownCgroup(path)
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
			if (err == nil) != want || err != nil && !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %s %v", path, real, err)
			}
		}
	}
}

// SIGKILL of an owner whose processes are still in the recorded cgroup.
func TestSweeperRemovesCgroup(t *testing.T) {
	for _, parent := range cgroupDirs(t) {
		path := filepath.Join(parent, fmt.Sprintf("pqlab-%d-swept", os.Getpid()))
		dir := filepath.Join(t.TempDir(), "pqlab")
		owner, _, sweeper, _ := startOwner(t, dir, "cgroup:"+path)
		cmd := occupied(t, path)
		// The sweeper itself may have been started inside.
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(sweeper)), 0); err != nil {
			t.Fatal(err)
		}
		owner.Process.Kill()
		owner.Wait()
		until(t, "sweeper has ended", func() bool { return !running(sweeper) })
		cmd.Wait()
		if exists(path) || exists(dir) || running(cmd.Process.Pid) {
			t.Errorf("%s: directory %v, journal %v", path, exists(path), exists(dir))
		}
	}
}
