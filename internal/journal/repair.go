package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// maxSize of a journal that is read, in bytes: a lab of 10,000 nodes in four hierarchies needs a quarter of it.
const maxSize = 16 << 20

// Report says what Repair found.
type Report struct {
	Owners []int    // processes that left a journal
	Undone []Entry  // in that order
	Bad    []string // lines that no journal has, quoted
}

// Repair undoes, newest first, what dead owners have written down in dir, and removes their journals. It goes on after an
// error and returns them all; the journal that could not be worked off stays for another attempt. Several may repair at
// once. A directory that does not exist has nothing to repair.
func Repair(dir string, undo Undo) (Report, error) {
	var report Report
	root, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return report, nil
	}
	if err != nil {
		return report, err
	}
	defer removeDir(dir)
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return report, err
	}
	boot, err := bootID()
	if err != nil {
		return report, err
	}
	var errs []error
	for _, e := range entries {
		o, ok := parseOwner(e.Name())
		if !ok || o.alive(boot) {
			continue
		}
		if err := report.repair(root, o, boot, undo, 0); err != nil {
			errs = append(errs, fmt.Errorf("repair after process %d (journal %s/%s): %w", o.pid, dir, e.Name(), err))
		}
	}
	return report, errors.Join(errs...)
}

// repair works off one journal. If another process has the lock it waits for it, at most for patience, and then leaves
// the journal to that one.
func (r *Report) repair(root *os.Root, o owner, boot string, undo Undo, patience time.Duration) error {
	name := o.String()
	if info, err := root.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return notExistIsNil(err)
	}
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return notExistIsNil(err)
	}
	defer f.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := lock(f)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil // its owner lives where we cannot see it, or another repairs
		}
	}
	if !linked(root, name, f) {
		return nil
	}
	r.Owners = append(r.Owners, o.pid)
	if o.boot == boot {
		data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
		if err != nil {
			return err
		}
		if len(data) > maxSize {
			return fmt.Errorf("it is larger than %d bytes; remove it by hand", maxSize)
		}
		entries, bad := parse(string(data))
		r.Bad = append(r.Bad, bad...)
		if err := r.undo(entries, undo); err != nil {
			return err
		}
	}
	return root.Remove(name)
}

// undo undoes entries, newest first.
func (r *Report) undo(entries []Entry, undo Undo) error {
	var errs []error
	for _, e := range slices.Backward(entries) {
		f := undo[e.Kind]
		if f == nil {
			errs = append(errs, fmt.Errorf("nothing known undoes %q (%s)", e.Kind, e.Path))
			continue
		}
		if err := f(e.Path); err != nil {
			errs = append(errs, fmt.Errorf("undo %v: %w", e, err))
			continue
		}
		r.Undone = append(r.Undone, e)
	}
	return errors.Join(errs...)
}

func notExistIsNil(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another has repaired it
	}
	return err
}
