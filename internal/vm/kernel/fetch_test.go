package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const fakePackage = "linux-image-6.12.9+deb12-amd64-unsigned"

// Programs that behave like apt's: the lists describe one package, whose file is a tar archive of what it holds.
const (
	aptCache = `#!/bin/sh
case "$1" in
pkgnames) echo %[1]s; echo linux-image-6.12.9+deb12-cloud-amd64;;
show) [ "$3" = %[1]s ] || { echo "N: No packages found" >&2; exit 100; }
	printf 'Package: %%s\nVersion: 6.12.9-1\nDescription: x\n y\nSize: %[2]d\nSHA256: %[3]s\n\nPackage: old\nSize: 1\n' "$3";;
esac
`
	aptGet = `#!/bin/sh
echo x >> %[1]s/downloads
[ ! -e %[1]s/fail ] || { cat %[1]s/fail >&2; exit 100; }
cp %[1]s/file.deb ./package.deb
[ ! -e %[1]s/hang ] || { : > %[1]s/hanging; exec sleep 1000; }
`
	dpkgDeb = `#!/bin/sh
tar -xf "$2" -C "$3"
`
)

// fakeApt makes them, with the package, in a directory of their own.
func fakeApt(t testing.TB) Apt {
	t.Helper()
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar here")
	}
	const modules = "lib/modules/6.12.9-test"
	content := map[string][]byte{"boot/vmlinuz-6.12.9-test": bzImage(zstandard(vmlinux(5000)), 5007)}
	source := someModules(t)
	err := filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		content[filepath.Join(modules, rel)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	deb := filepath.Join(dir, "file.deb")
	if out, err := exec.Command("tar", "-cf", deb, "-C", tree(t, content), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(b)
	for name, text := range map[string]string{
		"apt-cache": fmt.Sprintf(aptCache, fakePackage, len(b), hex.EncodeToString(hash[:])), "apt-get": fmt.Sprintf(aptGet, dir), "dpkg-deb": dpkgDeb,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Apt{Dir: dir}
}

func quiet(string) {}

// downloads is how many there were.
func downloads(t testing.TB, a Apt) int {
	b, err := os.ReadFile(filepath.Join(a.Dir, "downloads"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "x")
}

// left fails the test if the cache holds anything but these and its lock.
func left(t testing.TB, c Cache, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Name() != lockFile {
			got = append(got, e.Name())
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in the cache: %q, want %q", got, want)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{filepath.Join(t.TempDir(), "a", "kernels")}
	if _, err := cache.Find(""); !errors.Is(err, ErrNotFetched) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("before: %v", err)
	}
	k, err := cache.Fetch(t.Context(), apt, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache.Dir, fakePackage+"_6.12.9-1")
	want := Kernel{fakePackage, "6.12.9-test", dir + "/boot/vmlinux-6.12.9-test", dir + "/lib/modules/6.12.9-test"}
	if k != want {
		t.Errorf("%+v, want %+v", k, want)
	}
	if image, err := os.ReadFile(k.Image); err != nil || !isELF(image) {
		t.Errorf("image: %v", err)
	}
	if m, err := ReadModules(k.Modules); err != nil || m.files["esp4"] == "" {
		t.Errorf("modules: %v", err)
	}
	left(t, cache, fakePackage+"_6.12.9-1")
	for _, name := range []string{"", fakePackage} {
		if again, err := cache.Fetch(t.Context(), apt, name, quiet); again != want || err != nil {
			t.Errorf("again: %+v, %v", again, err)
		}
		if found, err := cache.Find(name); found != want || err != nil {
			t.Errorf("found %q: %+v, %v", name, found, err)
		}
	}
	if n := downloads(t, apt); n != 1 {
		t.Errorf("%d downloads", n)
	}
	file, err := cache.Find(filepath.Join(dir, "boot/vmlinuz-6.12.9-test"))
	if err != nil || file.Modules != want.Modules || file.Release != want.Release {
		t.Errorf("by its path: %+v, %v", file, err)
	}
}

// Several at once: one does it.
func TestFetchTogether(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{t.TempDir()}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := cache.Fetch(t.Context(), apt, "", quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := downloads(t, apt); n != 1 {
		t.Errorf("%d downloads", n)
	}
	left(t, cache, fakePackage+"_6.12.9-1")
}

// What is not whole is never used, and the next fetch puts it right.
func TestHalfUnpacked(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{t.TempDir()}
	name := fakePackage + "_6.12.9-1"
	k, err := cache.Fetch(t.Context(), apt, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache.Dir, name, markerFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(*marker)) []byte {
		var m marker
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		b, _ := json.Marshal(m)
		return b
	}
	for i, bad := range [][]byte{
		nil, []byte("{"), edit(func(m *marker) { m.Version = "2" }), edit(func(m *marker) { m.Image = "../" + name + "/" + m.Image }),
		edit(func(m *marker) { m.Modules = "lib/modules/other" }),
	} {
		if bad == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, bad, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		if found, err := cache.Find(""); !errors.Is(err, ErrNotFetched) {
			t.Errorf("%d: found %+v, %v", i, found, err)
		}
		if again, err := cache.Fetch(t.Context(), apt, "", quiet); again != k || err != nil {
			t.Errorf("%d: %+v, %v", i, again, err)
		}
		if n := downloads(t, apt); n != i+2 {
			t.Errorf("%d downloads", n)
		}
	}
}

func TestFetchErrors(t *testing.T) {
	t.Parallel()
	write := func(a Apt, name, text string) {
		if err := os.WriteFile(filepath.Join(a.Dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		break_ func(a Apt)
		name   string
		want   error
	}{
		"no apt":          {func(a Apt) { os.Remove(filepath.Join(a.Dir, "apt-cache")) }, "", ErrNoApt},
		"no dpkg":         {func(a Apt) { os.Remove(filepath.Join(a.Dir, "dpkg-deb")) }, "", ErrNoApt},
		"unknown":         {func(Apt) {}, "linux-image-9", ErrNoPackage},
		"no name":         {func(Apt) {}, "-oDir=x", ErrNoPackage},
		"no lists":        {func(a Apt) { write(a, "apt-cache", "#!/bin/sh\n") }, "", ErrNoPackage},
		"no hash":         {func(a Apt) { write(a, "apt-cache", "#!/bin/sh\necho Package: "+fakePackage+"\necho Size: 3\n") }, fakePackage, ErrNoPackage},
		"no network":      {func(a Apt) { write(a, "fail", "E: Could not resolve 'deb.debian.org'\n") }, "", ErrDownload},
		"other bytes":     {func(a Apt) { write(a, "file.deb", "something else") }, "", ErrCorrupt},
		"disk full there": {func(a Apt) { write(a, "fail", "E: Write error - write (28: No space left on device)\n") }, "", ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apt, cache := fakeApt(t), Cache{t.TempDir()}
			c.break_(apt)
			k, err := cache.Fetch(t.Context(), apt, c.name, quiet)
			var e *Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Remedy == "" || !errors.Is(err, errors.ErrUnsupported) || k != (Kernel{}) {
				t.Errorf("%+v, %v, want %v", k, err, c.want)
			}
			left(t, cache)
		})
	}
}

// Every byte counts: whichever is changed, the file is refused.
func TestCheck(t *testing.T) {
	t.Parallel()
	data := []byte("the package")
	hash := sha256.Sum256(data)
	p := Package{Size: int64(len(data)), SHA256: hex.EncodeToString(hash[:])}
	file := filepath.Join(t.TempDir(), "f")
	try := func(b []byte) error {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return check(p, file)
	}
	if err := try(data); err != nil {
		t.Error(err)
	}
	for i := range data {
		bad := []byte(string(data))
		bad[i] ^= 1
		if err := try(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	if err := try(append(data, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one more: %v", err)
	}
}

// A fetch that is stopped leaves nothing, neither files nor processes.
func TestFetchStopped(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{t.TempDir()}
	if err := os.WriteFile(filepath.Join(apt.Dir, "hang"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		waitFor(t, filepath.Join(apt.Dir, "hanging"))
		cancel()
	}()
	if _, err := cache.Fetch(ctx, apt, "", quiet); err == nil {
		t.Error("no error")
	}
	left(t, cache)
}

func waitFor(t testing.TB, path string) {
	for deadline := time.Now().Add(2 * time.Minute); !exists(path); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("no %s after two minutes", path)
			return
		}
	}
}

// Variables that make the test binary a fetch, for tests that kill it or fill its disk.
const (
	childCache = "PQLAB_TEST_CACHE"
	childApt   = "PQLAB_TEST_APT"
	childDisk  = "PQLAB_TEST_DISK" // MiB
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childCache); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child fetches, and says by its exit status how that went.
func child(dir string) int {
	if size := os.Getenv(childDisk); size != "" {
		err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", dir, "tmpfs", 0, "size="+size))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
	}
	c := Cache{dir}
	_, err := c.Fetch(context.Background(), Apt{os.Getenv(childApt)}, "", quiet)
	fmt.Fprintln(os.Stderr, err)
	left, _ := filepath.Glob(filepath.Join(dir, temporary+"*"))
	switch {
	case len(left) > 0:
		return 98
	case errors.Is(err, ErrFull) && errors.Is(err, errors.ErrUnsupported):
		return 3
	case err != nil:
		return 1
	}
	return 0
}

func childCommand(t testing.TB, cache Cache, apt Apt, env ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = append(append(os.Environ(), childCache+"="+cache.Dir, childApt+"="+apt.Dir), env...)
	return c
}

// After kill -9 in the middle the next fetch works, and removes what was left.
func TestFetchKilled(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{t.TempDir()}
	hang := filepath.Join(apt.Dir, "hang")
	if err := os.WriteFile(hang, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := childCommand(t, cache, apt)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, filepath.Join(apt.Dir, "hanging"))
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if found, err := filepath.Glob(filepath.Join(cache.Dir, temporary+"*")); err != nil || len(found) != 1 {
		t.Fatalf("it left %v, %v: this test's subject is something else", found, err)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Fetch(t.Context(), apt, "", quiet); err != nil {
		t.Error(err)
	}
	left(t, cache, fakePackage+"_6.12.9-1")
}

// A disk that is full, before anything is written and in the middle of it, is an error that says so.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"16k", "40k", "96k"} {
		apt, cache := fakeApt(t), Cache{t.TempDir()}
		if size == "96k" { // the space is there when it is asked for, but the package unpacks to more than is thought
			text := "#!/bin/sh\ntar -xf \"$2\" -C \"$3\"\nhead -c 200000 /dev/zero > \"$3/big\"\n"
			if err := os.WriteFile(filepath.Join(apt.Dir, "dpkg-deb"), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c := childCommand(t, cache, apt, childDisk+"="+size)
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		out, err := c.CombinedOutput()
		if errors.Is(err, unix.EPERM) || c.ProcessState != nil && c.ProcessState.ExitCode() == 99 {
			t.Skipf("no small disk can be made here: %v: %s", err, out)
		}
		if c.ProcessState == nil || c.ProcessState.ExitCode() != 3 {
			t.Errorf("%s: %v: %s", size, err, out)
		}
		t.Logf("%s: %s", size, out)
	}
}

func TestFindFile(t *testing.T) {
	t.Parallel()
	c := Cache{t.TempDir()}
	dir := tree(t, map[string][]byte{"k": vmlinux(500), "junk": []byte("no kernel")})
	k, err := c.Find(filepath.Join(dir, "k"))
	if err != nil || k.Release != "6.12.9-test" || k.Modules != "" {
		t.Errorf("%+v, %v", k, err)
	}
	for name, want := range map[string]error{"junk": ErrImage, "nothing": fs.ErrNotExist} {
		_, err := c.Find(filepath.Join(dir, name))
		var e *Error
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Remedy == "" || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
