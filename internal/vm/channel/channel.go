// Package channel is what the two sides of a guest say to each other: frames of a kind, a length and that many bytes,
// over one virtio port. Standard input, output and error of the command go through it beside everything else, so that
// they are separate, and whatever bytes they carry.
package channel

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Port is the name of the virtio port.
const Port = "pqlab"

// Kind says what a frame carries.
type Kind byte

// The kinds. Those up to Size go to the guest, the others come from it.
const (
	Start  Kind = iota + 1 // a Command
	Input                  // of standard input; empty: its end
	Signal                 // one byte: the signal's number
	Size                   // of the terminal: a unix.Winsize

	Hello   // the guest is up: a Guest
	Failed  // nothing was started, and nothing more will come: a Failure
	Started // the command runs
	Output  // of standard output
	Errors  // of standard error
	Screen  // of the terminal
	Credit  // so many more bytes of input may be sent: 4 bytes
	Exit    // the command has ended, after all of its output: one byte, its status as a shell says it
	last    = Exit
)

// Window is how many bytes of input may be on their way at first. So a command that does not read its input never holds
// up the signals behind it.
const Window = 64 << 10

// Max is how many bytes one frame carries at most. Commands are longer than data: arguments and environment may have 2 MiB.
const Max = 4 << 20

// Command is what the guest is to run.
type Command struct {
	Args     []string
	Env      []string
	Dir      string
	Shares   []Share
	Terminal *Terminal // nil: none of the descriptors is one
	Time     int64     // of the host, in nanoseconds since 1970
	Modules  string    // the directory of the kernel's modules, or ""
	Release  string    // of the kernel that the modules are for
	Preload  []string  // modules to load before the command starts, where the kernel has them
	Self     string    // the path of this program
}

// Share is a directory of the host that is writable in the guest, under the same path.
type Share struct{ Tag, Path string }

// Terminal says which of the command's descriptors 0, 1 and 2 are one terminal, and how that is set.
type Terminal struct {
	On       [3]bool
	Settings *unix.Termios // nil: as the kernel makes it
	Size     unix.Winsize
}

// Guest is what a guest says of itself.
type Guest struct {
	Release string // as uname -r says
}

// Stage is where the guest failed.
type Stage string

// The stages.
const (
	Modules Stage = "modules"
	Files   Stage = "files"
	Exec    Stage = "exec"
	Setup   Stage = "setup"
)

// Failure says why the command was not started.
type Failure struct {
	Stage  Stage
	Text   string
	Status int // the status a shell gives for it, where Stage is Exec: 126 or 127
}

// ErrProtocol is of bytes that are no frames.
var ErrProtocol = errors.New("the guest's channel carries something else")

// head is the kind and the length, little-endian.
const head = 5

// Writer writes frames, each by one Write. Its methods may be called from any goroutine.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
	b  []byte
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one frame.
func (w *Writer) Write(kind Kind, data []byte) error {
	if len(data) > Max {
		return fmt.Errorf("a frame of %d bytes: at most %d", len(data), Max)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b[:0], byte(kind))
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(len(data)))
	w.b = append(w.b, data...)
	_, err := w.w.Write(w.b)
	return err
}

// Value sends one frame with a value in it: by gob, as arguments and paths may be no UTF-8.
func (w *Writer) Value(kind Kind, value any) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(value); err != nil {
		return err
	}
	return w.Write(kind, b.Bytes())
}

// Reader reads frames.
type Reader struct {
	r io.Reader
	b []byte
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. Its data are good until the next call. Between frames the error is io.EOF if the other
// end has closed.
func (r *Reader) Next() (Kind, []byte, error) {
	var h [head]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return 0, nil, err
	}
	kind, n := Kind(h[0]), binary.LittleEndian.Uint32(h[1:])
	if kind < Start || kind > last || n > Max {
		return 0, nil, fmt.Errorf("%w: frame of kind %d, %d bytes", ErrProtocol, kind, n)
	}
	r.b = r.b[:0]
	for len(r.b) < int(n) { // in steps: a length that lies costs no memory
		step := min(int(n)-len(r.b), 64<<10)
		at := len(r.b)
		r.b = append(r.b, make([]byte, step)...)
		if _, err := io.ReadFull(r.r, r.b[at:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
	}
	return kind, r.b, nil
}

// Decode reads a frame's value. The error wraps ErrProtocol.
func Decode[T any](data []byte) (T, error) {
	var v T
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return v, nil
}

// One returns the byte of a frame that has one.
func One(data []byte) (byte, error) {
	if len(data) != 1 {
		return 0, fmt.Errorf("%w: %d bytes, want 1", ErrProtocol, len(data))
	}
	return data[0], nil
}

// Number returns the number of a Credit.
func Number(data []byte) (int, error) {
	if len(data) != 4 {
		return 0, fmt.Errorf("%w: %d bytes, want 4", ErrProtocol, len(data))
	}
	return int(binary.LittleEndian.Uint32(data)), nil
}

// Bytes is the frame of a Credit.
func Bytes(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
