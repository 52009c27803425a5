package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The files of a report.
const (
	JSONFile  = "result.json"
	JUnitFile = "junit.xml"
	HTMLFile  = "index.html"
)

// ErrForeign says that a directory holds something other than a report or captures.
var ErrForeign = errors.New("holds something that pqlab did not write")

// WriteDir writes result.json, junit.xml and index.html into dir, which it makes if need be. A directory that is not empty is
// written to only if it holds an earlier report (a result.json of ours); otherwise the error is ErrForeign and nothing is
// changed.
func (r Result) WriteDir(dir string) error {
	if err := CheckDir(dir); err != nil {
		return err
	}
	files := []File{{Name: JUnitFile}, {Name: HTMLFile}, {Name: JSONFile}}
	for i, write := range []func(io.Writer) error{r.WriteJUnit, r.WriteHTML, r.WriteJSON} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		files[i].Text = b.Bytes()
	}
	return WriteFiles(dir, files...)
}

// File is one of a report's.
type File struct {
	Name string // in its directory
	Text []byte
}

// WriteFiles writes files into dir, which it makes if need be. Each is replaced in one step and only after all could be
// written. On an error no directory is left that was not there.
func WriteFiles(dir string, files ...File) (err error) {
	var made []string // by MkdirAll, the innermost first
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, at)
	}
	temps := make([]string, len(files))
	defer func() {
		for _, t := range temps {
			if t != "" {
				os.Remove(t)
			}
		}
		if err != nil {
			err = fmt.Errorf("report: %w", err)
			for _, d := range made {
				os.Remove(d) // stays if something is in it
			}
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, f := range files {
		if temps[i], err = writeTemp(dir, f.Name, f.Text); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := os.Rename(temps[i], filepath.Join(dir, f.Name)); err != nil {
			return err
		}
		temps[i] = ""
	}
	return nil
}

// CheckDir tells before a run whether WriteDir would accept dir: it can be written to, and is missing, empty, or holds an
// earlier report or captures and nothing else. It makes nothing.
func CheckDir(dir string) error {
	if err := writable(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	if !captures(dir, entries, true) && !ours(filepath.Join(dir, JSONFile)) {
		return fmt.Errorf("directory %s: %w; name a new or empty one", dir, ErrForeign)
	}
	return nil
}

// writable tries whether files can be made in dir, or dir itself where it is missing: permissions do not tell, as in /proc
// or below a working directory that was deleted. What it tries with is gone when it returns.
func writable(dir string) error {
	fail := func(at string, err error) error {
		return fmt.Errorf("directory %s cannot be written: %s: %w", dir, at, err)
	}
	at := filepath.Clean(dir)
	for {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			err = unix.ENOTDIR
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return fail(at, err)
		}
		if _, e := os.Lstat(at); e == nil {
			return fail(at, fmt.Errorf("a symbolic link that leads nowhere: %w", err))
		}
		at = filepath.Dir(at)
	}
	probe, err := os.MkdirTemp(at, ".pqlab-*")
	if err != nil {
		return fail(at, err)
	}
	if err := os.Remove(probe); err != nil {
		return fail(at, err)
	}
	return nil
}

// RemoveCaptures removes the captures of earlier runs from dir, lest they pass for those of the next, and the keys that
// decrypt them. Those that pqlab did not write stay.
func RemoveCaptures(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch path := filepath.Join(dir, e.Name()); {
		case capture(dir, e):
			err = os.Remove(path)
		case keys(dir, e):
			err = errors.Join(os.Remove(filepath.Join(path, "esp_sa")), os.Remove(filepath.Join(path, "preferences")), os.Remove(path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keys says whether a directory holds nothing but the keys of captures, as package capture writes them.
func keys(dir string, e fs.DirEntry) bool {
	if !e.IsDir() {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(dir, e.Name()))
	if err != nil || len(entries) != 2 {
		return false
	}
	for _, f := range entries {
		if n := f.Name(); !f.Type().IsRegular() || n != "esp_sa" && n != "preferences" || !begins(filepath.Join(dir, e.Name(), n), "# pqlab: ") {
			return false
		}
	}
	return true
}

// begins says whether a file begins with some text.
func begins(path, with string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(with))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == with
}

// capture says whether a file is a capture that pqlab wrote, or began to.
func capture(dir string, e fs.DirEntry) bool {
	if !e.Type().IsRegular() || filepath.Ext(e.Name()) != ".pcapng" {
		return false
	}
	f, err := os.Open(filepath.Join(dir, e.Name()))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err == io.EOF { // not flushed before its run was killed
		return true
	}
	head = head[:n]
	// A section header block with the option shb_userappl (draft-ietf-opsawg-pcapng, section 4.1), as package capture writes it.
	return bytes.HasPrefix(head, []byte("\n\r\r\n")) && bytes.Contains(head, []byte("\x04\x00\x05\x00pqlab"))
}

// captures says whether there is nothing but captures of links, which a run may write beside its report or in a directory
// below it.
func captures(dir string, entries []fs.DirEntry, below bool) bool {
	for _, e := range entries {
		switch {
		case capture(dir, e), keys(dir, e):
		case e.IsDir() && below:
			sub := filepath.Join(dir, e.Name())
			entries, err := os.ReadDir(sub)
			if err != nil || !captures(sub, entries, false) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// ours reports whether a file is the result of a run.
func ours(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(b, &keys) != nil {
		return false
	}
	for _, k := range []string{"topology", "verdict", "rekeys", "cpu_seconds"} {
		if _, ok := keys[k]; !ok {
			return false
		}
	}
	return true
}

func writeTemp(dir, name string, b []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}
