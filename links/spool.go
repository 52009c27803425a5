package links

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// spool writes a file from a goroutine of its own, so that who has something to write never waits for a disk. The file is
// there, under its name, once all of it is. Its methods are for one goroutine at a time.
type spool struct {
	path   string // that the file gets
	file   *os.File
	to     io.Writer
	full   chan []byte // to be written
	empty  chan []byte // to be filled
	failed chan error  // has the writer's error, if there is one
	ended  chan struct{}
	err    error // what writing came to
	closed bool
}

// mostSpooled is how many pieces wait for the disk at most: 8 MiB, if they are of 64 KiB.
const mostSpooled = 128

// errSlowDisk says that more was to be written than the disk took.
var errSlowDisk = errors.New("the disk takes it too slowly, and what waits for it has no more room in memory")

func newSpool(path string) (*spool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	s := spoolTo(f)
	s.path, s.file = path, f
	return s, nil
}

// spoolTo begins to write.
func spoolTo(to io.Writer) *spool {
	s := &spool{
		to: to, full: make(chan []byte, mostSpooled), empty: make(chan []byte, mostSpooled), failed: make(chan error, 1), ended: make(chan struct{}),
	}
	go s.run()
	return s
}

func (s *spool) run() {
	defer close(s.ended)
	failed := false
	for b := range s.full {
		if failed {
			continue
		}
		if _, err := s.to.Write(b); err != nil {
			failed = true
			s.failed <- err
		}
		select {
		case s.empty <- b:
		default:
		}
	}
}

// Write implements io.Writer. It keeps a copy of b and does not wait; an error may be of what was written before.
func (s *spool) Write(b []byte) (int, error) {
	if s.closed {
		return 0, os.ErrClosed
	}
	if s.look(); s.err != nil {
		return 0, s.err
	}
	var room []byte
	select {
	case room = <-s.empty:
	default:
	}
	select {
	case s.full <- append(room[:0], b...):
		return len(b), nil
	default:
		s.err = s.named(errSlowDisk)
		return 0, s.err
	}
}

// look takes the writer's error.
func (s *spool) look() {
	select {
	case err := <-s.failed:
		if s.err == nil {
			s.err = s.named(err)
		}
	default:
	}
}

// named is an error under the name that the file would have had.
func (s *spool) named(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Errorf("%s: %w", s.path, err)
}

// finish waits until all is written.
func (s *spool) finish() {
	if !s.closed {
		s.closed = true
		close(s.full)
	}
	<-s.ended
	s.look()
}

// commit gives the file its name, or after an error of writing removes it.
func (s *spool) commit() error {
	if s.finish(); s.err != nil {
		return errors.Join(s.err, s.discard())
	}
	err := s.file.Chmod(0o644)
	if err = errors.Join(err, s.file.Close()); err == nil {
		err = os.Rename(s.file.Name(), s.path)
	}
	if err != nil {
		return errors.Join(s.named(err), os.Remove(s.file.Name()))
	}
	return nil
}

// discard removes the file.
func (s *spool) discard() error {
	s.finish()
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}
