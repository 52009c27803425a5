package supervisor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The protocol. A frame is its length in 4 bytes, big endian, and that many bytes of JSON. One connection serves one
// request:
//
//	server: greeting              with the log as a descriptor
//	client: request               of exec: with 0 to 3 descriptors
//	server: reply                 of exec: the process runs, and there is more
//	client: notice …              signals, until
//	server: reply                 the exit status
//
// of capture, from the request on:
//
//	server: reply …               the ends of the links with their sockets
//	server: reply …               news, until the client goes away or the lab ends
//
// The client's closing its end early hangs the process up.
const (
	protocolVersion = 3
	maxRequest      = 8 << 20  // bytes; holds the arguments and environment of a command, and three traces of 2 MiB for a link
	maxReply        = 16 << 20 // bytes; holds the status of some 10,000 nodes
	maxNotice       = 1 << 10  // bytes
)

type greeting struct {
	Version int        `json:"version"`
	Error   *wireError `json:"error,omitempty"`
}

type operation string

const (
	opStatus operation = "status"
	opExec   operation = "exec"
	opDown   operation = "down"
	opLink   operation = "link"

	opCapture operation = "capture"
)

type request struct {
	Version int          `json:"version"`
	Op      operation    `json:"op"`
	Exec    *execRequest `json:"exec,omitempty"`
	Link    *linkRequest `json:"link,omitempty"`

	Capture *CaptureRequest `json:"capture,omitempty"`
}

type linkRequest struct {
	Link   string   `json:"link"`
	From   string   `json:"from,omitempty"`
	Change []string `json:"change"`
}

// execRequest has bytes where Command has strings: file names need not be UTF-8, and JSON's strings must.
type execRequest struct {
	Node   string   `json:"node"`
	Path   []byte   `json:"path"`
	Dir    []byte   `json:"dir"`
	Args   [][]byte `json:"args"`
	Env    [][]byte `json:"env"`
	TTY    bool     `json:"tty"`
	Stdin  bool     `json:"stdin"` // which of them the descriptors are, in this order
	Stdout bool     `json:"stdout"`
	Stderr bool     `json:"stderr"`
}

type notice struct {
	Signal int `json:"signal"`
}

type reply struct {
	Errors []wireError `json:"errors,omitempty"`
	Status *Status     `json:"status,omitempty"`
	Link   *LinkStatus `json:"link,omitempty"`
	PID    int         `json:"pid,omitempty"`  // exec: it runs
	Exit   *int        `json:"exit,omitempty"` // exec: it has ended

	Capture *Capture     `json:"capture,omitempty"` // with the sockets of its ends as descriptors
	More    bool         `json:"more,omitempty"`    // of Capture, with the next reply
	News    *CaptureNews `json:"news,omitempty"`    // capture: after Capture
}

// wireError is an error on its way to the client. Kind is what a client decides on.
type wireError struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// kinds are the errors that keep their identity on the wire.
func kinds() map[string]error {
	return map[string]error{
		"denied": ErrDenied, "node": ErrNoNode, "link": ErrNoLink, "input": ErrInput, "unsupported": errors.ErrUnsupported, "state": ErrState, "busy": ErrBusy, "protocol": ErrProtocol,
		"notfound": os.ErrNotExist, "permission": os.ErrPermission,
	}
}

// remoteError is an error of the other side.
type remoteError struct {
	kind error // may be nil
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func toWire(err error) wireError {
	w := wireError{Text: err.Error()}
	for kind, sentinel := range kinds() {
		if errors.Is(err, sentinel) {
			w.Kind = kind
		}
	}
	return w
}

func fromWire(w wireError) error { return &remoteError{kind: kinds()[w.Kind], text: w.Text} }

// split undoes errors.Join, so that each error travels by itself.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

// encode makes a frame.
func encode(v any, limit int) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > limit {
		return nil, fmt.Errorf("%w: message of %d bytes exceeds %d", ErrProtocol, len(body), limit)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// decode reads a frame. It takes memory for what has come, not for what the header promises.
func decode(r io.Reader, v any, limit int) error {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n == 0 || int64(n) > int64(limit) {
		return fmt.Errorf("%w: message of %d bytes, must be 1 to %d", ErrProtocol, n, limit)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(body.Bytes(), v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// send writes a frame, the files with its first byte. It does not close them.
func send(c *net.UnixConn, v any, limit int, files ...*os.File) error {
	frame, err := encode(v, limit)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err := c.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		if frame = frame[n:]; len(frame) == 0 {
			return nil // writing nothing fails when the other side has answered and closed already
		}
	}
	_, err = c.Write(frame)
	return err
}

// receive reads a frame and up to max descriptors that come with it; on error it has closed them.
func receive(c *net.UnixConn, v any, limit, max int) ([]*os.File, error) {
	r := rightsReader{c: c, max: max}
	err := decode(&r, v, limit)
	if err == nil && len(r.files) > max { // also those that came with the last byte
		err = fmt.Errorf("%w: more than %d descriptors", ErrProtocol, max)
	}
	if err != nil {
		closeAll(r.files)
		return nil, err
	}
	return r.files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// rightsReader collects the descriptors that come with the bytes. There is room for one more than are wanted, which
// shows that there are too many; the kernel closes what finds no room.
type rightsReader struct {
	c     *net.UnixConn
	max   int
	files []*os.File
}

func (r *rightsReader) Read(p []byte) (int, error) {
	if r.max == 0 {
		return r.c.Read(p)
	}
	oob := make([]byte, unix.CmsgSpace(4*(r.max+1)))
	n, oobn, _, _, err := r.c.ReadMsgUnix(p, oob)
	if oobn > 0 {
		messages, parseErr := unix.ParseSocketControlMessage(oob[:oobn])
		if parseErr != nil {
			return n, fmt.Errorf("%w: %w", ErrProtocol, parseErr)
		}
		for _, m := range messages {
			fds, rightsErr := unix.ParseUnixRights(&m)
			if rightsErr != nil {
				continue // not SCM_RIGHTS: carries nothing to close
			}
			for _, fd := range fds {
				r.files = append(r.files, os.NewFile(uintptr(fd), "received"))
			}
		}
	}
	switch {
	case err != nil:
		return n, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}
