// Package initramfs writes the archive from which a kernel makes its first files: cpio in the format "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

// Types of files, as in stat(2).
const (
	regular   = 0o100000
	directory = 0o040000
	link      = 0o120000
	character = 0o020000
)

// Writer writes one archive. Directories above a file are written when they are first needed. After an error nothing
// more is written, and Close returns it.
type Writer struct {
	w    io.Writer
	err  error
	ino  uint32
	n    int64 // bytes written, for padding
	made map[string]bool
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, made: map[string]bool{"": true}} }

// File adds a regular file. The name is relative to the root.
func (w *Writer) File(name string, data []byte, perm uint32) {
	w.entry(name, regular|perm&0o7777, 0, 0, data)
}

// Dir adds a directory.
func (w *Writer) Dir(name string) { w.dir(name) }

// Link adds a symbolic link.
func (w *Writer) Link(name, to string) { w.entry(name, link|0o777, 0, 0, []byte(to)) }

// Char adds a character device.
func (w *Writer) Char(name string, perm, major, minor uint32) {
	w.entry(name, character|perm&0o7777, major, minor, nil)
}

// Close ends the archive. It does not close the file below.
func (w *Writer) Close() error {
	w.record("TRAILER!!!", 0, 0, 0, nil)
	w.pad(512)
	return w.err
}

func (w *Writer) entry(name string, mode, major, minor uint32, data []byte) {
	clean := path.Clean("/" + name)[1:]
	if w.err == nil && (clean == "" || w.made[clean] || strings.ContainsRune(clean, 0)) {
		w.err = fmt.Errorf("initramfs: file %q: no name for a new file", name)
	}
	if w.err == nil && int64(len(data)) > math.MaxUint32 {
		w.err = fmt.Errorf("initramfs: file %q: %d bytes, at most 4 GiB go in", name, len(data))
	}
	w.dir(path.Dir(clean))
	w.made[clean] = true
	w.record(clean, mode, major, minor, data)
}

func (w *Writer) dir(name string) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if w.made[clean] {
		return
	}
	w.dir(path.Dir("/" + clean))
	w.made[clean] = true
	w.record(clean, directory|0o755, 0, 0, nil)
}

func (w *Writer) record(name string, mode, major, minor uint32, data []byte) {
	w.ino++
	links := 1
	if mode&directory != 0 && mode&link != link {
		links = 2
	}
	// ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	w.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.ino, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name))
	w.pad(4)
	w.write(data)
	w.pad(4)
}

func (w *Writer) pad(to int64) {
	if rest := w.n % to; rest != 0 {
		w.write(make([]byte, to-rest))
	}
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.n += int64(n)
	if err != nil {
		w.err = errors.Join(errors.New("write the initramfs"), err)
	}
}
