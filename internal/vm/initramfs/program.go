package initramfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLibrary is wrapped by the error of a program that needs a shared library which is not where its loader looks.
var ErrLibrary = errors.New("a shared library of the program is not found")

// libraries are the loader's default directories, on Debian's layout and on others.
var libraries = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// Libraries returns the files that a program needs to run, itself not included: its loader and its shared libraries, by
// the paths at which it looks for them. A static program needs none.
func Libraries(program io.ReaderAt) ([]string, error) {
	f, err := elf.NewFile(program)
	if err != nil {
		return nil, err
	}
	loader, err := interpreter(f)
	if err != nil || loader == "" {
		return nil, err
	}
	files := []string{loader}
	seen := map[string]bool{filepath.Base(loader): true}
	pending, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for len(pending) > 0 {
		name := pending[0]
		pending = pending[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		path, more, err := library(name)
		if err != nil {
			return nil, err
		}
		files = append(files, path)
		pending = append(pending, more...)
	}
	return files, nil
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, min(p.Filesz, 4096))
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", err
		}
		if len(b) < 2 {
			return "", errors.New("its loader has no name")
		}
		return string(b[:len(b)-1]), nil
	}
	return "", nil
}

// library finds one, and what it needs itself.
func library(name string) (path string, needs []string, err error) {
	for _, dir := range libraries {
		path := filepath.Join(dir, name)
		f, err := elf.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", path, err)
		}
		defer f.Close()
		needs, err := f.ImportedLibraries()
		return path, needs, err
	}
	return "", nil, fmt.Errorf("%w: %s; build it with CGO_ENABLED=0", ErrLibrary, name)
}

// Program adds a program under a name, with what it needs to run.
func (w *Writer) Program(name string, data []byte) {
	if w.err != nil {
		return
	}
	needs, err := Libraries(bytes.NewReader(data))
	if err != nil {
		w.err = fmt.Errorf("initramfs: program %s: %w", name, err)
		return
	}
	w.File(name, data, 0o755)
	for _, path := range needs {
		b, err := os.ReadFile(path)
		if err != nil {
			w.err = fmt.Errorf("initramfs: program %s: %w", name, err)
			return
		}
		w.File(path, b, 0o755)
	}
}
