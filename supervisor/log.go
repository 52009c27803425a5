package supervisor

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	logKept = 256 << 10 // bytes that stay when the log is trimmed
	logTail = 16 << 10  // bytes that are shown
)

// newLog makes the memory that takes what a supervisor and its children print. It is a file without a name that all of
// them write at its end, so that the words of a panic get there too; whoever holds a descriptor can read it after the
// supervisor's death, and nothing is left once nobody does.
func newLog() (*os.File, error) {
	fd, err := unix.MemfdCreate("pqlab-log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for the log: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pqlab-log")
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// trimLog gives the memory of all but the last bytes of the log back. Its size goes on growing, its memory does not,
// and no writer has to know.
func trimLog(f *os.File, keep int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	page := int64(os.Getpagesize())
	old := (st.Size() - keep) / page * page
	if old <= 0 {
		return nil
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, old)
}

// tailLog gives the last lines of the log, at most max bytes.
func tailLog(f *os.File, max int64) (string, error) {
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := st.Size() - max
	if from < 0 {
		from = 0
	}
	b := make([]byte, st.Size()-from)
	n, err := f.ReadAt(b, from)
	if n < len(b) {
		return "", err
	}
	if from > 0 {
		b = bytes.TrimLeft(b, "\x00")
		if _, rest, ok := bytes.Cut(b, []byte{'\n'}); ok {
			b = rest // begins in the middle of a line
		}
	}
	return string(b), nil
}
