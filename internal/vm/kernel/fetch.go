package kernel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that Fetch's *Error may wrap.
var (
	ErrNoApt     = errors.New("no apt here")
	ErrNoPackage = errors.New("apt knows no such package")
	ErrDownload  = errors.New("the download failed")
	ErrCorrupt   = errors.New("the package is not the one that apt's lists describe")
	ErrFull      = errors.New("the disk is full")
)

// Package is what apt's lists say of one.
type Package struct {
	Name    string
	Version string
	Size    int64  // of the file, in bytes
	SHA256  string // of the file, in hex
}

// Apt gets packages by apt's tools. The zero value uses those of the machine. Nothing is installed, and root is not
// needed.
type Apt struct {
	Dir string // where the programs are, if not in $PATH
}

// command makes one that dies with this process. It must be run by run.
func (a Apt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if a.Dir != "" {
		name = filepath.Join(a.Dir, name)
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	// Its helpers too: apt-get starts one for each way of downloading.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGTERM) }
	c.WaitDelay = 5 * time.Second
	return c
}

// run returns what the program wrote to standard output. The parent-death signal is the thread's, so the calling
// goroutine keeps its own until the program has ended.
func run(c *exec.Cmd) ([]byte, error) {
	var out, diagnostics bytes.Buffer
	c.Stdout, c.Stderr = &out, &diagnostics
	err := bound(c.Run)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoApt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(lastLines(diagnostics.String(), 4)))
	}
	return out.Bytes(), nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Find returns what apt would download for a name; "" is the newest package with the default kernel.
func (a Apt) Find(ctx context.Context, name string) (Package, error) {
	if name == "" {
		out, err := run(a.command(ctx, "apt-cache", "pkgnames", "linux-image-"+Default))
		if err != nil {
			return Package{}, err
		}
		if name = newest(string(out)); name == "" {
			return Package{}, fmt.Errorf("%w: none of linux-image-%s.*", ErrNoPackage, Default)
		}
	}
	out, err := run(a.command(ctx, "apt-cache", "show", "--no-all-versions", name))
	if errors.Is(err, ErrNoApt) || ctx.Err() != nil {
		return Package{}, err
	}
	if err != nil {
		return Package{}, fmt.Errorf("%w: %w", ErrNoPackage, err)
	}
	return parseStanza(out)
}

// newest chooses among the names of packages. Of two with the same kernel, the unsigned one: a guest checks no
// signatures.
func newest(names string) string {
	best := ""
	for name := range strings.Lines(names) {
		name = strings.TrimSpace(name)
		if defaultPackage.MatchString(name) && (best == "" || compare(name, best) > 0) {
			best = name
		}
	}
	return best
}

// parseStanza reads the first paragraph of what apt-cache show prints.
func parseStanza(text []byte) (Package, error) {
	var p Package
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan() && lines.Text() != ""; {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "SHA256":
			p.SHA256 = strings.ToLower(value)
		case "Size":
			var err error
			if p.Size, err = strconv.ParseInt(value, 10, 64); err != nil {
				return Package{}, fmt.Errorf("apt's lists: size %q: %w", value, err)
			}
		}
	}
	if hash, err := hex.DecodeString(p.SHA256); err != nil || len(hash) != sha256.Size || p.Size <= 0 || !anyPackage.MatchString(p.Name) ||
		p.Version == "" || strings.ContainsAny(p.Version, "/_ ") {
		return Package{}, fmt.Errorf("%w with a size and a hash in apt's lists", ErrNoPackage)
	}
	return p, nil
}

// download puts the package's file into dir and checks it.
func (a Apt) download(ctx context.Context, p Package, dir string) (string, error) {
	c := a.command(ctx, "apt-get", "download", "-q", p.Name+"="+p.Version)
	c.Dir = dir
	if _, err := run(c); err != nil {
		if errors.Is(err, ErrNoApt) {
			return "", err
		}
		if full(err) {
			return "", fmt.Errorf("%w: %w", ErrFull, err)
		}
		return "", fmt.Errorf("%w: %w", ErrDownload, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("%w: %d files arrived, want 1", ErrDownload, len(files))
	}
	return files[0], check(p, files[0])
}

// check compares a file with what apt's lists say.
func check(p Package, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); n != p.Size || got != p.SHA256 {
		return fmt.Errorf("%w: %d bytes with SHA-256 %s, want %d with %s", ErrCorrupt, n, got, p.Size, p.SHA256)
	}
	return nil
}

// unpacking is how much the unpacked package takes, in units of the package, its own file included.
const unpacking = 3

// Fetch gets the package of a name ("": the newest with the default kernel) into the cache, unless it is there, and
// returns its kernel. It can run several times at once: the first does it and the others wait. What a killed one left
// is removed by the next. say is told what goes on. The error is an *Error.
func (c Cache) Fetch(ctx context.Context, apt Apt, name string, say func(string)) (Kernel, error) {
	k, err := c.fetch(ctx, apt, name, say)
	if err == nil {
		return k, nil
	}
	if name == "" {
		name = Default
	}
	if full(err) && !errors.Is(err, ErrFull) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	e := &Error{Kernel: name, Err: err}
	var place *fs.PathError
	switch {
	case errors.Is(err, ErrNoApt):
		e.Remedy = "take a kernel by its path or the running one: --kernel FILE, --kernel host"
	case errors.Is(err, ErrNoPackage):
		e.Remedy = "apt-get update, as root, if apt's lists are missing or old; on other systems than Debian take a kernel by its path: --kernel FILE"
	case errors.Is(err, ErrDownload), errors.Is(err, ErrCorrupt):
		e.Remedy = "apt-get update, as root, and try again"
	case errors.Is(err, ErrFull):
		e.Remedy = "make room in " + c.Dir + ", or set XDG_CACHE_HOME to a directory elsewhere"
	case errors.As(err, &place):
		e.Remedy = "let this user write to " + c.Dir + ", or set XDG_CACHE_HOME to a directory elsewhere"
	}
	return Kernel{}, e
}

func (c Cache) fetch(ctx context.Context, apt Apt, name string, say func(string)) (Kernel, error) {
	if name != "" && !packageName.MatchString(name) {
		return Kernel{}, fmt.Errorf("%w: %q is no package's name (linux-image-…)", ErrNoPackage, name)
	}
	p, err := apt.Find(ctx, name)
	if err != nil {
		return Kernel{}, err
	}
	dir := p.Name + "_" + p.Version
	if k, err := c.open(dir); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return Kernel{}, err
	}
	unlock, err := c.lock(ctx, say)
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if k, err := c.open(dir); err == nil { // another did it meanwhile
		return k, nil
	}
	if err := c.sweep(dir); err != nil {
		return Kernel{}, err
	}
	if err := c.room(p.Size * unpacking); err != nil {
		return Kernel{}, err
	}
	tmp, err := os.MkdirTemp(c.Dir, temporary)
	if err != nil {
		return Kernel{}, err
	}
	if err := c.fill(ctx, apt, p, tmp, say); err == nil {
		err = os.Rename(tmp, filepath.Join(c.Dir, dir))
		if err == nil {
			return c.open(dir)
		}
		return Kernel{}, errors.Join(err, os.RemoveAll(tmp))
	} else {
		return Kernel{}, errors.Join(err, os.RemoveAll(tmp))
	}
}

// fill makes the new directory of the cache.
func (c Cache) fill(ctx context.Context, apt Apt, p Package, tmp string, say func(string)) error {
	say(fmt.Sprintf("downloading %s %s, %d MB", p.Name, p.Version, p.Size/1e6))
	deb, err := apt.download(ctx, p, tmp)
	if err != nil {
		return err
	}
	say("unpacking " + filepath.Base(deb))
	if _, err := run(apt.command(ctx, "dpkg-deb", "-x", deb, tmp)); err != nil {
		return err
	}
	if err := os.Remove(deb); err != nil {
		return err
	}
	m := marker{Package: p.Name, Version: p.Version, SHA256: p.SHA256}
	if err := m.locate(tmp); err != nil {
		return err
	}
	say("indexing its modules")
	if err := depmod(ctx, filepath.Join(tmp, m.Modules)); err != nil {
		return err
	}
	if err := m.unpackImage(tmp); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, markerFile), b, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return flush(tmp)
}

// flush makes all that was written last through a loss of power, so that no marker stands beside files that are cut
// short.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// locate finds the image and the modules in an unpacked package.
func (m *marker) locate(dir string) error {
	images, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%w: %d images in boot, want 1", ErrImage, len(images))
	}
	m.Release = strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	m.Image = filepath.Join("boot", filepath.Base(images[0]))
	for _, usr := range []string{"", "usr"} {
		m.Modules = filepath.Join(usr, "lib/modules", m.Release)
		if exists(filepath.Join(dir, m.Modules)) {
			return nil
		}
	}
	return fmt.Errorf("%w: no lib/modules/%s in the package", fs.ErrNotExist, m.Release)
}

// unpackImage puts the vmlinux of the bzImage beside it, if it can be unpacked.
func (m *marker) unpackImage(dir string) error {
	image, err := os.ReadFile(filepath.Join(dir, m.Image))
	if err != nil {
		return err
	}
	if _, err := Release(image); err != nil {
		return err
	}
	elf, err := Vmlinux(image)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	m.Image = filepath.Join("boot", "vmlinux-"+m.Release)
	return os.WriteFile(filepath.Join(dir, m.Image), elf, 0o644)
}

// temporary is how directories are named that are being filled.
const temporary = ".fetch-"

// sweep removes what fetches that were killed have left, and a directory of that name that is not whole. It needs the lock.
func (c Cache) sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(c.Dir, temporary+"*"))
	if err != nil {
		return err
	}
	for _, path := range append(left, filepath.Join(c.Dir, dir)) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// lockFile is locked (flock) by whoever fetches.
const lockFile = "lock"

// lock waits until no other process fetches into this cache.
func (c Cache) lock(ctx context.Context, say func(string)) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.Dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if first {
			say("waiting for another pqlab vm fetch")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}

// room is an error if the cache's file system has not this many bytes left for this user.
func (c Cache) room(bytes int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(c.Dir, &s); err != nil {
		return fmt.Errorf("space in %s: %w", c.Dir, err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < bytes {
		return fmt.Errorf("%w: %d MB are free in %s, the package takes %d MB", ErrFull, free/1e6, c.Dir, bytes/1e6)
	}
	return nil
}

// full tells of an error that it came from a full disk or quota; of another program's, by its words.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || strings.Contains(err.Error(), unix.ENOSPC.Error()) ||
		strings.Contains(strings.ToLower(err.Error()), "no space left")
}
