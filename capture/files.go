package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files are where a capture is written: one file, or a ring of them. Each is made under a name of its own, so that only its
// owner may read it, and takes its place with Commit or, in a ring, with Next. What is no regular file, such as a named
// pipe, is written as it is.
type Files struct {
	path  string
	keep  int // how many files of a ring there are at most; 0: one file
	count int // of files so far
	names []string
	now   *os.File
	temp  string // the name of now as long as it has not got its place; empty: it has
}

// Create makes the first file for a path.
func Create(path string, keep int) (*Files, error) {
	f := &Files{path: path, keep: keep}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, &fs.PathError{Op: "capture", Path: path, Err: errors.New("is a directory")}
	case err == nil && !info.Mode().IsRegular() && keep == 0:
		f.now, err = os.OpenFile(path, os.O_WRONLY, 0)
		return f, err
	case err == nil && keep == 0: // a symbolic link stays one
		if f.path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	return f, f.create()
}

// name of the file that is written now.
func (f *Files) name() string {
	if f.keep == 0 {
		return f.path
	}
	ext := filepath.Ext(f.path)
	return fmt.Sprintf("%s_%05d%s", strings.TrimSuffix(f.path, ext), f.count, ext)
}

func (f *Files) create() (err error) {
	f.count++
	dir, base := filepath.Dir(f.name()), filepath.Base(f.name()) // never "", which CreateTemp takes for another directory
	// CreateTemp makes it with mode 0600.
	if f.now, err = os.CreateTemp(dir, "."+strings.TrimSuffix(base, filepath.Ext(base))+".*"+filepath.Ext(base)); err != nil {
		return err
	}
	f.temp = f.now.Name()
	return nil
}

// Write writes to the file of the moment.
func (f *Files) Write(b []byte) (int, error) { return f.now.Write(b) }

// Truncate takes back what does not belong to a regular file.
func (f *Files) Truncate(size int64) error { return f.now.Truncate(size) }

// Commit gives the file its place.
func (f *Files) Commit() error {
	if f.temp == "" {
		return nil
	}
	if err := os.Rename(f.temp, f.name()); err != nil {
		return err
	}
	f.temp = ""
	f.names = append(f.names, f.name())
	return nil
}

// Next completes a file of a ring, removes the oldest if there are too many, and begins the one that follows.
func (f *Files) Next() (io.Writer, error) {
	if err := errors.Join(f.Commit(), f.now.Close()); err != nil {
		return nil, err
	}
	for len(f.names) >= f.keep {
		if err := os.Remove(f.names[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f.names = f.names[1:]
	}
	if err := f.create(); err != nil {
		return nil, err
	}
	return f, f.Commit()
}

// Names of the files that there are, the oldest first.
func (f *Files) Names() []string {
	if len(f.names) == 0 && f.temp == "" {
		return []string{f.path}
	}
	return f.names
}

// Close completes the file of the moment, or removes it if it has not got its place.
func (f *Files) Close() error {
	err := f.now.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
	}
	return err
}

// Discard removes what there is of them.
func (f *Files) Discard() error {
	errs := []error{f.Close()}
	for _, name := range f.names {
		errs = append(errs, os.Remove(name))
	}
	f.names = nil
	return errors.Join(errs...)
}
