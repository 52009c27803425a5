// Package journal writes down what outlives a process, such as cgroup directories, before it is made or changed, so that
// it is put right when the process dies without doing so: at once, by a sweeper process that waits for that, or by the
// next start of pqlab if the sweeper has been killed too.
//
// A journal is a file of lines "+ KIND PATH" and "- KIND PATH" in a directory that only its owner can read. The file is
// named for the process that writes it, PID-STARTTIME-BOOT-N, and locked (flock) by it; by both a dead owner's is
// told from a living one's. It is about what a boot clears, and so a journal of another boot is only removed.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Undo maps a kind of entry to what undoes it. Undoing what has been undone, or was never done, is no error.
type Undo map[string]func(path string) error

// Entry is one thing to undo.
type Entry struct{ Kind, Path string }

func (e Entry) String() string { return e.Kind + " " + e.Path }

// Journal is what this process will have to undo. Its methods may be called from any goroutine.
type Journal struct {
	dir string

	mu      sync.Mutex
	closed  bool
	root    *os.Root // nil until the first entry
	name    string
	file    *os.File
	entries []Entry
	sweeper *sweeper
}

// Open returns a journal that will be kept in dir, which must be a directory of this user's alone or not exist. It makes
// nothing: the file, and the sweeper, come with the first entry. The sweeper is this program, run again: its main must
// call SweeperMain first.
func Open(dir string) (*Journal, error) {
	root, err := openDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		root.Close()
	}
	return &Journal{dir: dir}, nil
}

// Record writes down that path is about to be made or changed in the way that kind says. Make the change only if it
// returns nil.
func (j *Journal) Record(kind, path string) error {
	e := Entry{kind, path}
	if err := e.check(); err != nil {
		return fmt.Errorf("record in journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("record %v in journal: %w", e, os.ErrClosed)
	}
	if j.sweeper == nil { // before anything else, so that no moment to die is too early
		s, err := startSweeper(j.dir)
		if err != nil {
			return fmt.Errorf("record %v in journal: %w", e, err)
		}
		j.sweeper = s
	}
	if j.file == nil {
		if err := j.create(); err != nil {
			return fmt.Errorf("record %v in journal: %w", e, err)
		}
	}
	if err := j.write('+', e); err != nil {
		return err
	}
	j.entries = append(j.entries, e)
	return nil
}

// Forget writes down that path has been put right.
func (j *Journal) Forget(kind, path string) error {
	e := Entry{kind, path}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("forget %v in journal: %w", e, os.ErrClosed)
	}
	i := lastIndex(j.entries, e)
	if i < 0 {
		return fmt.Errorf("forget %v in journal: it is not in there", e)
	}
	j.entries = slices.Delete(j.entries, i, i+1)
	if len(j.entries) == 0 {
		// The file starts again, and so never outgrows what is there at one time by much.
		if err := j.file.Truncate(0); err != nil {
			return fmt.Errorf("forget %v in journal: %w", e, err)
		}
		return nil
	}
	return j.write('-', e)
}

// Close removes the journal, and its directory if nothing else is in it. What has not been forgotten is left to the
// sweeper, for which Close waits; an error says what it could not undo, and the journal then stays for Repair.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.sweeper == nil {
		j.closed = true
		return nil
	}
	j.closed = true
	if j.file == nil { // it could not be made
		j.sweeper.stop()
		return nil
	}
	var err error
	if len(j.entries) == 0 {
		err = j.root.Remove(j.name)
	}
	j.file.Close()
	j.sweeper.stop()
	if len(j.entries) > 0 {
		if _, serr := j.root.Lstat(j.name); serr == nil {
			err = fmt.Errorf("journal %s/%s: not undone: %v", j.dir, j.name, j.entries)
		}
	}
	j.root.Close()
	removeDir(j.dir)
	if err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// create makes the file, under a lock.
func (j *Journal) create() error {
	me, err := self()
	if err != nil {
		return err
	}
	for n := 0; n < 10_000; n++ {
		me.n = n
		name := me.String()
		if err := j.sweeper.tell(name); err != nil {
			return err
		}
		root, err := makeDir(j.dir)
		if err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if err == nil {
			err = lock(f)
			if err == nil && linked(root, name, f) {
				j.root, j.name, j.file = root, name, f
				return nil
			}
			f.Close()
		}
		root.Close()
		// ErrExist: another journal of this process. ErrNotExist: another process has just removed the directory, as
		// it was empty. Not linked or locked: another took the file for a dead one's before we had the lock.
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
	}
	return fmt.Errorf("no name is free in %s", j.dir)
}

// write appends one line. A line that a crash cuts short is of a change that was never made.
func (j *Journal) write(sign byte, e Entry) error {
	if _, err := fmt.Fprintf(j.file, "%c %s %s\n", sign, e.Kind, e.Path); err != nil {
		return fmt.Errorf("write %v to journal %s: %w", e, j.name, err)
	}
	return nil
}

func lastIndex(entries []Entry, e Entry) int {
	for i, x := range slices.Backward(entries) {
		if x == e {
			return i
		}
	}
	return -1
}

// parse returns the entries that are still to undo, oldest first, and the lines that no journal has.
func parse(data string) (entries []Entry, bad []string) {
	for {
		line, rest, whole := strings.Cut(data, "\n")
		if !whole {
			return entries, bad // nothing, or a line cut short
		}
		data = rest
		sign, text, _ := strings.Cut(line, " ")
		kind, path, _ := strings.Cut(text, " ")
		e := Entry{kind, path}
		if sign == "+" && e.check() == nil {
			entries = append(entries, e)
			continue
		}
		if sign == "-" {
			if i := lastIndex(entries, e); i >= 0 {
				entries = slices.Delete(entries, i, i+1)
				continue
			}
		}
		bad = append(bad, fmt.Sprintf("%.200q", line))
	}
}
