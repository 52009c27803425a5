package kernel

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInstalled looks for a kernel in trees like those of distributions.
func TestInstalled(t *testing.T) {
	t.Parallel()
	const release, other = "6.12.9-test", "6.12.8-test"
	elf := vmlinux(500)
	compressed := bzImage(gzipped(elf), len(elf))
	of := func(image []byte, release string) []byte {
		return bytes.ReplaceAll(image, []byte("6.12.9-test"), []byte(release))
	}
	modules, usrModules := "lib/modules/"+release, "usr/lib/modules/"+release
	type files = map[string][]byte
	for name, c := range map[string]struct {
		files          files
		image, modules string // found, below the root
		err            error
	}{
		"Debian":              {files{"boot/vmlinuz-" + release: compressed, modules + "/modules.dep": nil}, "boot/vmlinuz-" + release, modules, nil},
		"Fedora":              {files{usrModules + "/vmlinuz": compressed, usrModules + "/modules.dep": nil}, usrModules + "/vmlinuz", usrModules, nil},
		"NixOS and others":    {files{modules + "/vmlinuz": compressed, modules + "/modules.dep": nil}, modules + "/vmlinuz", modules, nil},
		"uncompressed":        {files{"boot/vmlinux-" + release: elf}, "boot/vmlinux-" + release, "", nil},
		"without modules":     {files{"boot/vmlinuz-" + release: compressed, modules + "/kernel/a.ko": nil}, "boot/vmlinuz-" + release, "", nil},
		"of several, first":   {files{"boot/vmlinuz-" + release: compressed, "boot/vmlinux-" + release: elf}, "boot/vmlinuz-" + release, "", nil},
		"one is none":         {files{"boot/vmlinuz-" + release: []byte("none"), usrModules + "/vmlinuz": compressed}, usrModules + "/vmlinuz", "", nil},
		"one is another's":    {files{"boot/vmlinuz-" + release: of(compressed, other), "boot/vmlinux-" + release: elf}, "boot/vmlinux-" + release, "", nil},
		"all are none":        {files{"boot/vmlinuz-" + release: []byte("none")}, "", "", ErrImage},
		"none":                {files{"boot/vmlinuz-" + other: of(compressed, other)}, "", "", fs.ErrNotExist},
		"nothing but modules": {files{modules + "/modules.dep": nil}, "", "", fs.ErrNotExist},
	} {
		root := tree(t, c.files)
		k, err := Installed(root, release)
		if c.err != nil {
			var e *Error
			if !errors.Is(err, c.err) || !errors.As(err, &e) || e.Kernel == "" || e.Remedy == "" || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := Kernel{Name: release, Release: release, Image: filepath.Join(root, c.image)}
		if c.modules != "" {
			want.Modules = filepath.Join(root, c.modules)
		}
		if err != nil || k != want {
			t.Errorf("%s: %+v, %v, want %+v", name, k, err, want)
		}
	}
}

// An image of another release is not taken for the one asked for.
func TestInstalledOther(t *testing.T) {
	t.Parallel()
	k, err := Installed(tree(t, map[string][]byte{"boot/vmlinux-6.1": vmlinux(500)}), "6.1")
	if !errors.As(err, new(*Error)) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", k, err)
	}
}

// An image that may not be read is named, with what to do, where there is no other.
func TestInstalledUnreadable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 && unix.Access("/", unix.W_OK) == nil {
		t.Skip("root may read everything")
	}
	root := tree(t, map[string][]byte{"boot/vmlinuz-6.12.9-test": vmlinux(500)})
	path := filepath.Join(root, "boot/vmlinuz-6.12.9-test")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := Installed(root, "6.12.9-test")
	var e *Error
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &e) || e.Remedy == "" {
		t.Error(err)
	}
}

// "host" is the kernel that runs here, where its image is here too.
func TestHost(t *testing.T) {
	t.Parallel()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	k, err := Cache{t.TempDir()}.Find("host")
	var e *Error
	switch {
	case err == nil && (k.Name != "host" || k.Release != unix.ByteSliceToString(u.Release[:]) || !exists(k.Image)):
		t.Errorf("%+v", k)
	case err != nil && (!errors.As(err, &e) || e.Remedy == "" || e.Kernel != "host"):
		t.Error(err)
	}
}
