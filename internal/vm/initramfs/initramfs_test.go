package initramfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// entry is one of an archive, as read reads it.
type entry struct {
	name         string
	mode         uint64
	major, minor uint64
	data         []byte
}

// read takes an archive apart by the format's description: 110 characters of header, the name, the data, each part
// padded to four bytes.
func read(t *testing.T, b []byte) []entry {
	t.Helper()
	var all []entry
	inodes := map[uint64]bool{}
	for at := 0; ; {
		if at+110 > len(b) || string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d of %d", at, len(b))
		}
		field := func(i int) uint64 {
			n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		size, nameSize := int(field(6)), int(field(11))
		start := at + 110
		name := b[start : start+nameSize]
		if name[len(name)-1] != 0 {
			t.Fatalf("name %q has no end", name)
		}
		data := (start + nameSize + 3) &^ 3
		e := entry{string(name[:len(name)-1]), field(1), field(9), field(10), b[data : data+size]}
		if inodes[field(0)] {
			t.Errorf("%s: inode %d is another's", e.name, field(0))
		}
		inodes[field(0)] = true
		if e.name == "TRAILER!!!" {
			if len(b)%512 != 0 {
				t.Errorf("%d bytes: no whole blocks", len(b))
			}
			return all
		}
		all = append(all, e)
		at = (data + size + 3) &^ 3
	}
}

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Dir("dev")
	w.Char("dev/console", 0o600, 5, 1)
	w.File("a/b/c", []byte("12345"), 0o755)
	w.File("a/b/empty", nil, 0o644)
	w.File("/a/d", bytes.Repeat([]byte{7}, 4096), 0o600)
	w.Link("init", "a/b/c")
	w.Dir("a/b") // is there
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	t.Parallel()
	want := []entry{
		{"dev", 0o040755, 0, 0, nil}, {"dev/console", 0o020600, 5, 1, nil}, {"a", 0o040755, 0, 0, nil}, {"a/b", 0o040755, 0, 0, nil},
		{"a/b/c", 0o100755, 0, 0, []byte("12345")}, {"a/b/empty", 0o100644, 0, 0, nil}, {"a/d", 0o100600, 0, 0, bytes.Repeat([]byte{7}, 4096)},
		{"init", 0o120777, 0, 0, []byte("a/b/c")},
	}
	got := read(t, archive(t))
	if !slices.EqualFunc(got, want, func(a, b entry) bool {
		return a.name == b.name && a.mode == b.mode && a.major == b.major && a.minor == b.minor && bytes.Equal(a.data, b.data)
	}) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// cpio is a reader that we did not write.
func TestCpio(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio here: the archive is read by this test's own reader only")
	}
	c := exec.Command(path, "-it", "--quiet")
	c.Stdin = bytes.NewReader(archive(t))
	out, err := c.CombinedOutput()
	want := "dev dev/console a a/b a/b/c a/b/empty a/d init"
	if err != nil || strings.Join(strings.Fields(string(out)), " ") != want {
		t.Errorf("%v: %s", err, out)
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	for name, add := range map[string]func(*Writer){
		"none":       func(w *Writer) { w.File("", nil, 0) },
		"the root":   func(w *Writer) { w.File("/", nil, 0) },
		"with NUL":   func(w *Writer) { w.File("a\x00b", nil, 0) },
		"twice":      func(w *Writer) { w.File("a", nil, 0); w.File("./a", nil, 0) },
		"over a dir": func(w *Writer) { w.File("a/b", nil, 0); w.Link("a", "b") },
	} {
		var b bytes.Buffer
		w := NewWriter(&b)
		add(w)
		if err := w.Close(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// Nothing leads out of the archive.
	var b bytes.Buffer
	w := NewWriter(&b)
	w.File("../../etc/passwd", []byte("x"), 0o644)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b.Bytes()); got[len(got)-1].name != "etc/passwd" {
		t.Errorf("%+v", got)
	}
}

type failing struct{ after int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	if f.after -= len(b); f.after < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// An error of the file below comes out of Close, wherever it happened.
func TestWriteError(t *testing.T) {
	t.Parallel()
	for after := range 700 {
		w := NewWriter(&failing{after})
		w.File("a", make([]byte, 300), 0o644)
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Fatalf("after %d bytes: %v", after, err)
		}
	}
	if err := NewWriter(io.Discard).Close(); err != nil {
		t.Error(err)
	}
}

// A program with its libraries runs in a root that has nothing else; ld.so itself says the same of what it needs.
func TestLibraries(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh here")
	}
	f, err := os.Open(sh)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := Libraries(f)
	if err != nil {
		t.Fatal(err)
	}
	program, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := interpreter(program)
	if err != nil {
		t.Fatal(err)
	}
	if loader == "" {
		t.Skip("sh is static here")
	}
	if !slices.Contains(files, loader) {
		t.Errorf("%v have no loader %s", files, loader)
	}
	out, err := exec.Command(loader, "--list", sh).CombinedOutput()
	if err != nil {
		t.Skipf("the loader lists nothing: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			continue
		}
		if !slices.ContainsFunc(files, func(path string) bool { return filepath.Base(path) == name }) {
			t.Errorf("%s (%s) is missing in %v", name, rest, files)
		}
	}
	if _, err := Libraries(strings.NewReader("#!/bin/sh")); err == nil {
		t.Error("a script is no program")
	}
}

// A library that is nowhere has an error of its own, and a file that is no program breaks the archive.
func TestNoLibrary(t *testing.T) {
	t.Parallel()
	if _, _, err := library("libno-such-thing.so.9"); !errors.Is(err, ErrLibrary) {
		t.Error(err)
	}
	w := NewWriter(io.Discard)
	w.Program("x", []byte("no program"))
	if err := w.Close(); err == nil {
		t.Error("no error")
	}
}
