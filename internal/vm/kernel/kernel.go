// Package kernel finds kernels for a guest and what belongs to them: those of Debian's packages, which it can fetch and
// unpack without installing them, the one that the machine runs, and any other in a file.
package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is one that a guest can boot.
type Kernel struct {
	Name    string `json:"name"`              // as it was asked for
	Release string `json:"release"`           // as uname -r says
	Image   string `json:"image"`             // the file: vmlinux or bzImage
	Modules string `json:"modules,omitempty"` // their directory; "" if it has none
}

// Error says that a kernel cannot be had, and what to do. It is errors.ErrUnsupported.
type Error struct {
	Kernel string // as it was asked for
	Err    error
	Remedy string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("guest kernel %s: %v", e.Kernel, e.Err)
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes it errors.ErrUnsupported.
func (e *Error) Is(target error) bool { return target == errors.ErrUnsupported }

// ErrNotFetched is wrapped by the errors of packages that are not in the cache.
var ErrNotFetched = errors.New("it has not been fetched")

// Default is what "" asks for: the newest of Debian's packages with this kernel.
const Default = "6.12"

// Names that packages have, and which of them hold the default kernel. What is named cloud has no 9p, and rt is slower.
var (
	packageName    = regexp.MustCompile(`^linux-image-[a-z0-9][a-z0-9.+~-]*$`)
	defaultPackage = regexp.MustCompile(`^linux-image-6\.12\.(\d+)\+deb\d+-amd64(?:-unsigned)?$`)
)

// Cache is a directory that holds unpacked packages.
type Cache struct{ Dir string }

// UserCache is the user's: $XDG_CACHE_HOME/pqlab/kernels, or ~/.cache/pqlab/kernels.
func UserCache() (Cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, &Error{Kernel: "of the cache", Err: err, Remedy: "set XDG_CACHE_HOME"}
	}
	return Cache{filepath.Join(dir, "pqlab", "kernels")}, nil
}

// Find returns the kernel of a name: "" for Default, "host" for the one that runs now, a Debian package that has been
// fetched, or the path of a vmlinux or bzImage, whose modules are then taken from where its release has them. The error
// is an *Error.
func (c Cache) Find(name string) (Kernel, error) {
	var (
		k   Kernel
		err error
	)
	switch {
	case name == "host":
		k, err = host()
	case name == "" || packageName.MatchString(name) && !exists(name):
		k, err = c.fetched(name)
	default:
		k, err = fromFile("/", name)
	}
	if err == nil {
		return k, nil
	}
	if name == "" {
		name = Default
	}
	var known *Error
	if errors.As(err, &known) {
		known.Kernel = name
		return Kernel{}, known
	}
	return Kernel{}, &Error{Kernel: name, Err: err}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// host is the kernel that runs here.
func host() (Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Kernel{}, err
	}
	k, err := Installed("/", unix.ByteSliceToString(u.Release[:]))
	k.Name = "host"
	return k, err
}

// Installed finds the kernel of a release where distributions put its image, on a machine whose files are below root. An
// image that cannot be read, or is of another release, counts only where there is no other. The error is an *Error.
func Installed(root, release string) (Kernel, error) {
	places := []string{
		"boot/vmlinuz-" + release, "lib/modules/" + release + "/vmlinuz", "usr/lib/modules/" + release + "/vmlinuz", "boot/vmlinux-" + release,
	}
	var first error
	for i, place := range places {
		places[i] = filepath.Join(root, place)
		k, err := fromFile(root, places[i])
		if err == nil && k.Release != release {
			err = &Error{Kernel: release, Err: fmt.Errorf("%s holds the kernel %s", places[i], k.Release), Remedy: "--kernel takes the path of any other"}
		}
		if err == nil {
			k.Name = release
			return k, nil
		}
		if first == nil && !errors.Is(err, fs.ErrNotExist) {
			first = err
		}
	}
	if first != nil {
		return Kernel{}, first
	}
	return Kernel{}, &Error{
		Kernel: release,
		Err:    fmt.Errorf("no image of the running kernel %s: none of %s: %w", release, strings.Join(places, ", "), fs.ErrNotExist),
		Remedy: "pqlab vm fetch gets Debian's, and --kernel takes the path of any other",
	}
}

// fromFile describes the kernel in a file of a machine whose files are below root.
func fromFile(root, path string) (Kernel, error) {
	image, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return Kernel{}, &Error{Kernel: path, Err: err, Remedy: "let this user read it (chmod +r, as root), or take the kernel that pqlab vm fetch gets"}
	}
	if err != nil {
		return Kernel{}, &Error{Kernel: path, Err: err, Remedy: "--kernel takes a path, the name of a Debian package, or host"}
	}
	release, err := Release(image)
	if err == nil {
		err = whole(image)
	}
	if err != nil {
		return Kernel{}, &Error{Kernel: path, Err: err, Remedy: "--kernel takes a vmlinux or a bzImage (vmlinuz) for x86-64"}
	}
	k := Kernel{Name: path, Release: release}
	if k.Image, err = filepath.Abs(path); err != nil {
		return Kernel{}, &Error{Kernel: path, Err: err}
	}
	for _, below := range []string{filepath.Join(filepath.Dir(k.Image), ".."), root, filepath.Join(root, "usr")} {
		dir := filepath.Join(below, "lib/modules", release)
		if exists(filepath.Join(dir, depFile)) {
			k.Modules = dir
			break
		}
	}
	return k, nil
}

// markerFile is written last, so that what is in the cache is whole or not there.
const markerFile = "complete.json"

// marker says what a directory of the cache holds.
type marker struct {
	Package string `json:"package"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"` // the package's
	Release string `json:"release"`
	Image   string `json:"image"`   // below the directory
	Modules string `json:"modules"` // below the directory
}

// fetched returns the kernel of a package, the newest version if there are several; "" is the default's newest.
func (c Cache) fetched(name string) (Kernel, error) {
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, &Error{Err: err, Remedy: "make it readable, or set XDG_CACHE_HOME to another directory"}
	}
	var found []Kernel
	for _, e := range entries {
		if pkg, _, ok := strings.Cut(e.Name(), "_"); !ok || !wanted(name, pkg) {
			continue
		}
		if k, err := c.open(e.Name()); err == nil {
			found = append(found, k)
		}
	}
	if len(found) == 0 {
		remedy := "pqlab vm fetch"
		if name != "" {
			remedy += " --kernel " + name
		}
		return Kernel{}, &Error{Err: fmt.Errorf("%w into %s", ErrNotFetched, c.Dir), Remedy: remedy + " gets it; it installs nothing and takes 250 MB"}
	}
	return slices.MaxFunc(found, func(a, b Kernel) int { return compare(a.Release+a.Image, b.Release+b.Image) }), nil
}

func wanted(name, pkg string) bool {
	if name == "" {
		return defaultPackage.MatchString(pkg)
	}
	return pkg == name
}

// open reads a directory of the cache.
func (c Cache) open(name string) (Kernel, error) {
	dir := filepath.Join(c.Dir, name)
	b, err := os.ReadFile(filepath.Join(dir, markerFile))
	if err != nil {
		return Kernel{}, err
	}
	var m marker
	if err := json.Unmarshal(b, &m); err != nil {
		return Kernel{}, fmt.Errorf("%s/%s: %w", dir, markerFile, err)
	}
	if !filepath.IsLocal(m.Image) || !filepath.IsLocal(m.Modules) || m.Package+"_"+m.Version != name {
		return Kernel{}, fmt.Errorf("%s/%s: it is not of this directory", dir, markerFile)
	}
	k := Kernel{Name: m.Package, Release: m.Release, Image: filepath.Join(dir, m.Image), Modules: filepath.Join(dir, m.Modules)}
	if !exists(k.Image) || !exists(k.Modules) {
		return Kernel{}, fmt.Errorf("%s: files are missing: %w", dir, fs.ErrNotExist)
	}
	return k, nil
}

// compare orders versions by their numbers: 6.12.9 before 6.12.10.
func compare(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, _ := strconv.ParseUint(a[:na], 10, 64)
			y, _ := strconv.ParseUint(b[:nb], 10, 64)
			if x != y {
				if x < y {
					return -1
				}
				return 1
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
