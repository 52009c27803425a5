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

// ErrForeign says that a directory holds something other than a report.
var ErrForeign = errors.New("holds something that is no pqlab report")

// WriteDir writes result.json, junit.xml and index.html into dir, which it makes if need be. Each file is replaced in one
// step and only after all three could be written. A directory that is not empty is written to only if it holds an
// earlier report (a result.json of ours); otherwise the error is ErrForeign and nothing is changed.
func (r Result) WriteDir(dir string) (err error) {
	if err := CheckDir(dir); err != nil {
		return err
	}
	created := false
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		created = true
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	files := []struct {
		name  string
		write func(io.Writer) error
		temp  string
	}{{JUnitFile, r.WriteJUnit, ""}, {HTMLFile, r.WriteHTML, ""}, {JSONFile, r.WriteJSON, ""}}
	defer func() {
		for _, f := range files {
			if f.temp != "" {
				os.Remove(f.temp)
			}
		}
		if err != nil && created {
			os.Remove(dir) // stays if something is in it
		}
	}()
	for i, f := range files {
		var b bytes.Buffer
		if err := f.write(&b); err != nil {
			return err
		}
		if files[i].temp, err = writeTemp(dir, f.name, b.Bytes()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	for i, f := range files {
		if err := os.Rename(f.temp, filepath.Join(dir, f.name)); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		files[i].temp = ""
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
		return fmt.Errorf("report: %w", err)
	}
	if !captures(dir, entries, true) && !ours(filepath.Join(dir, JSONFile)) {
		return fmt.Errorf("directory %s: %w; name a new or empty one", dir, ErrForeign)
	}
	return nil
}

// writable says whether files can be made in dir, or dir itself where it is missing.
func writable(dir string) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		err := unix.Access(at, unix.W_OK|unix.X_OK)
		if errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
			continue
		}
		if info, errStat := os.Stat(at); err == nil && errStat == nil && !info.IsDir() {
			err = unix.ENOTDIR
		}
		if err != nil {
			return fmt.Errorf("directory %s cannot be written: %s: %w", dir, at, err)
		}
		return nil
	}
}

// captures says whether there is nothing but captures of links, which a run may write beside its report or in a directory
// below it.
func captures(dir string, entries []fs.DirEntry, below bool) bool {
	for _, e := range entries {
		switch {
		case e.Type().IsRegular() && filepath.Ext(e.Name()) == ".pcapng":
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
