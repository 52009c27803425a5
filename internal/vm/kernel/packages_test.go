package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Other packages are fetched once, whole or not at all; and where they cannot be had the machine is what lacks something.
func TestFetchPackages(t *testing.T) {
	t.Parallel()
	apt, cache := fakeApt(t), Cache{filepath.Join(t.TempDir(), "a", "b")}
	for range 2 {
		dir, err := cache.FetchPackages(t.Context(), apt, []string{fakePackage}, quiet)
		if err != nil || dir != filepath.Join(cache.Dir, "6.12.9-1") || !exists(filepath.Join(dir, "boot/vmlinuz-6.12.9-test")) {
			t.Errorf("%s, %v", dir, err)
		}
	}
	if n := downloads(t, apt); n != 1 {
		t.Errorf("%d downloads", n)
	}
	left(t, cache, "6.12.9-1")

	for name, c := range map[string]struct {
		broken  func(a Apt) error
		program string
		text    string
		want    error
	}{
		"no apt":     {func(a Apt) error { return os.Remove(filepath.Join(a.Dir, "apt-get")) }, "", "", ErrNoApt},
		"no lists":   {nil, "apt-cache", "#!/bin/sh\n", ErrNoPackage},
		"no network": {nil, "fail", "E: Could not resolve 'deb.debian.org'\n", ErrDownload},
		"bytes":      {nil, "file.deb", "something else", ErrCorrupt},
		"full there": {nil, "fail", "E: Write error - write (28: No space left on device)\n", ErrFull},
		// More than any disk has.
		"full": {nil, "apt-cache", "#!/bin/sh\nprintf 'Package: %s\\nVersion: 1\\nSize: 1000000000000000000\\nSHA256: " +
			"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\\n' \"$3\"\n", ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apt, cache := fakeApt(t), Cache{t.TempDir()}
			var err error
			if c.broken != nil {
				err = c.broken(apt)
			} else {
				err = os.WriteFile(filepath.Join(apt.Dir, c.program), []byte(c.text), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			if dir, err := cache.FetchPackages(t.Context(), apt, []string{fakePackage}, quiet); !errors.Is(err, c.want) || !errors.Is(err, errors.ErrUnsupported) || dir != "" {
				t.Errorf("%q, %v, want %v", dir, err, c.want)
			}
			left(t, cache)
		})
	}
}

// Where nothing can be written, the error names the place and another way.
func TestFetchNowhere(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := (Cache{filepath.Join(file, "kernels")}).Fetch(t.Context(), fakeApt(t), "", quiet); !errors.Is(err, unix.ENOTDIR) || !errors.As(err, &e) || e.Remedy == "" {
		t.Errorf("%v", err)
	}
}
