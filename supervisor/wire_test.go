package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); c.Close() })
	return a, c.(*net.UnixConn)
}

func TestFrame(t *testing.T) {
	t.Parallel()
	q := request{Version: 1, Op: opExec, Exec: &execRequest{Node: "n", Path: []byte("/bin/\xff"), Args: [][]byte{{0xfe}, {}}, Stdout: true}}
	frame, err := encode(q, maxRequest)
	if err != nil {
		t.Fatal(err)
	}
	var got request
	if err := decode(iotest.OneByteReader(bytes.NewReader(frame)), &got, maxRequest); err != nil {
		t.Fatal(err)
	}
	if string(got.Exec.Path) != "/bin/\xff" || string(got.Exec.Args[0]) != "\xfe" || len(got.Exec.Args) != 2 || !got.Exec.Stdout || got.Exec.Stdin {
		t.Errorf("%+v", got.Exec)
	}
	for n := range frame {
		if err := decode(bytes.NewReader(frame[:n]), &got, maxRequest); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", n, len(frame), err)
		}
	}
	header := func(n uint32, body string) io.Reader {
		return strings.NewReader(string(binary.BigEndian.AppendUint32(nil, n)) + body)
	}
	for name, r := range map[string]io.Reader{
		"empty": header(0, ""), "one too long": header(11, strings.Repeat(" ", 11)), "endless": header(1<<32-1, ""),
		"no JSON": header(3, "abc"), "two values": header(4, "{}{}"), "other type": header(4, `"{}"`),
	} {
		if err := decode(r, new(request), 10); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := encode(strings.Repeat("x", 9), 10); !errors.Is(err, ErrProtocol) {
		t.Errorf("too long to send: %v", err)
	}
}

func TestFrameTakesMemoryForWhatComes(t *testing.T) {
	frame := append(binary.BigEndian.AppendUint32(nil, maxReply), "{}"...)
	n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decode(bytes.NewReader(frame), new(reply), maxReply)
		}
	}).AllocedBytesPerOp()
	if n > 64<<10 {
		t.Errorf("%d bytes for a header and 2 bytes", n)
	}
}

func TestDescriptorsArrive(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	var files, ends []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		files, ends = append(files, w), append(ends, r)
	}
	defer closeAll(ends)
	// A frame that no socket buffer holds, so that it arrives in pieces.
	long := request{Op: operation(strings.Repeat("x", maxRequest-100))}
	sent := make(chan error, 1)
	go func() { sent <- send(a, long, maxRequest, files...) }()
	var q request
	got, err := receive(b, &q, maxRequest, 3)
	if err != nil || len(got) != 3 || q.Op != long.Op {
		t.Fatalf("%d descriptors, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	closeAll(files)
	for i, f := range got {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, %v; a child would inherit it", i, flags, err)
		}
		f.Write([]byte{byte(i)})
		f.Close()
		if all, err := io.ReadAll(ends[i]); err != nil || !bytes.Equal(all, []byte{byte(i)}) {
			t.Errorf("descriptor %d: %v, %v", i, all, err)
		}
	}
}

// What is not wanted must not stay open: an end of a pipe would show.
func TestSurplusDescriptorsAreClosed(t *testing.T) {
	t.Parallel()
	for _, max := range []int{0, 1, 3} {
		a, b := pair(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := send(a, request{}, maxRequest, w, w, w, w); err != nil {
			t.Fatal(err)
		}
		w.Close()
		files, err := receive(b, new(request), maxRequest, max)
		if max > 0 && !errors.Is(err, ErrProtocol) || len(files) != 0 {
			t.Errorf("max %d: %d descriptors, %v", max, len(files), err)
		}
		r.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("max %d: a descriptor stays open: %v", max, err)
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	for kind, sentinel := range kinds() {
		w := toWire(&remoteError{kind: sentinel, text: "text"})
		if w.Kind != kind || !errors.Is(fromWire(w), sentinel) || fromWire(w).Error() != "text" {
			t.Errorf("%s: %+v", kind, w)
		}
	}
	if err := fromWire(wireError{Kind: "new", Text: "x"}); errors.Unwrap(err) != nil {
		t.Errorf("unknown kind: %v", errors.Unwrap(err))
	}
	all := split(errors.Join(errors.Join(ErrNoNode, io.EOF), nil, ErrBusy))
	if len(all) != 3 {
		t.Errorf("%v", all)
	}
}

// FuzzServer gives a served connection whatever bytes, and ends it.
func FuzzServer(f *testing.F) {
	for _, q := range []any{
		request{Version: 2, Op: opStatus}, request{Version: 2, Op: opDown}, request{Version: 3, Op: opStatus}, request{Version: 2, Op: opExec},
		request{Version: 2, Op: opExec, Exec: &execRequest{Node: "n1", Path: []byte("/bin/true"), TTY: true}},
		request{Version: 2, Op: opExec, Exec: &execRequest{Node: "n1", Path: []byte("/bin/true"), Stdin: true}},
		request{Version: 2, Op: opLink}, request{Version: 2, Op: opLink, Link: &linkRequest{Link: "l1", From: "n1", Change: []string{"delay=20ms"}}},
	} {
		b, err := encode(q, maxRequest)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))
	}
	run, err := encode(request{Version: 1, Op: opExec, Exec: &execRequest{Node: "n1", Path: []byte("p")}}, maxRequest)
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []any{notice{Signal: 15}, notice{Signal: 9}, notice{Signal: -1}, "x"} {
		b, err := encode(n, maxNotice)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(bytes.Clone(run), b...))
	}
	me, err := whoAmI()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		down := make(chan struct{})
		s := &server{grace: time.Millisecond, me: me, down: down, lab: puppetLab{}, state: Running, exec: ctx,
			stop: func() {
				select {
				case <-down:
				default:
					close(down)
				}
			}}
		a, b := pair(t)
		done := make(chan struct{})
		go func() { s.handle(b); close(done) }()
		go io.Copy(io.Discard, a)
		a.Write(data)
		a.CloseWrite()
		select {
		case <-done:
		case <-time.After(2 * time.Minute):
			t.Fatal("the connection does not end")
		}
		if s.clients != 0 {
			t.Errorf("%d clients left", s.clients)
		}
		s.conns.Wait()
		s.execs.Wait()
	})
}
