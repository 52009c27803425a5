package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// What was written is what is read, however the bytes are cut on their way.
func TestFrames(t *testing.T) {
	t.Parallel()
	var wire bytes.Buffer
	w := NewWriter(&wire)
	sizes := []int{0, 1, 4, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, Max}
	data := make([]byte, Max)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	for i, n := range sizes {
		if err := w.Write(Start+Kind(i), data[:n]); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(wire.Bytes()), "halves": iotest.HalfReader(bytes.NewReader(wire.Bytes())),
	} {
		frames := NewReader(r)
		for i, n := range sizes {
			kind, got, err := frames.Next()
			if err != nil || kind != Start+Kind(i) || !bytes.Equal(got, data[:n]) {
				t.Fatalf("%s, frame %d: kind %d, %d bytes, %v", name, i, kind, len(got), err)
			}
		}
		if _, _, err := frames.Next(); err != io.EOF {
			t.Errorf("%s: after the last: %v", name, err)
		}
	}
	if err := w.Write(Output, make([]byte, Max+1)); err == nil {
		t.Error("a frame too long was written")
	}
}

func TestBadFrames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wire []byte
		want error
	}{
		"no kind":      {[]byte{0, 0, 0, 0, 0}, ErrProtocol},
		"unknown kind": {[]byte{byte(last) + 1, 0, 0, 0, 0}, ErrProtocol},
		"too long":     {binary.LittleEndian.AppendUint32([]byte{byte(Output)}, Max+1), ErrProtocol},
		"text":         {[]byte("[    0.000000] Linux version"), ErrProtocol},
		"short head":   {[]byte{byte(Output), 1}, io.ErrUnexpectedEOF},
		"short data":   {[]byte{byte(Output), 3, 0, 0, 0, 'a'}, io.ErrUnexpectedEOF},
		"no data":      {[]byte{byte(Output), 3, 0, 0, 0}, io.ErrUnexpectedEOF},
	} {
		if _, _, err := NewReader(bytes.NewReader(c.wire)).Next(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	want := Command{
		Args: []string{"sh", "-c", "exit 7"}, Env: []string{"A=\xff", ""}, Dir: "/x", Shares: []Share{{"s0", "/x"}}, Time: 1 << 60,
		Terminal: &Terminal{On: [3]bool{true, false, true}, Settings: &unix.Termios{Iflag: 7, Cc: [19]uint8{3}}, Size: unix.Winsize{Row: 24, Col: 80}},
	}
	var wire bytes.Buffer
	if err := NewWriter(&wire).Value(Start, want); err != nil {
		t.Fatal(err)
	}
	_, data, err := NewReader(&wire).Next()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode[Command](data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Decode[Command]([]byte{9, 127}); !errors.Is(err, ErrProtocol) {
		t.Errorf("half a value: %v", err)
	}
	if n, err := Number(Bytes(Window)); n != Window || err != nil {
		t.Errorf("credit %d, %v", n, err)
	}
	for _, n := range []int{0, 2, 3, 5} {
		if _, err := One(make([]byte, n)); !errors.Is(err, ErrProtocol) {
			t.Errorf("one of %d bytes: %v", n, err)
		}
		if _, err := Number(make([]byte, n)); !errors.Is(err, ErrProtocol) {
			t.Errorf("number of %d bytes: %v", n, err)
		}
	}
}

// Whatever a guest sends, frames come out as they went in, or an error does.
func FuzzReader(f *testing.F) {
	f.Add([]byte{byte(Output), 1, 0, 0, 0, 'a', byte(Exit), 1, 0, 0, 0, 7})
	f.Add([]byte{byte(Credit), 4, 0, 0, 0, 1, 2, 3, 4})
	f.Add([]byte("[    0.0] panic"))
	f.Add([]byte{byte(Output), 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var again bytes.Buffer
		w, r := NewWriter(&again), NewReader(bytes.NewReader(wire))
		for {
			kind, data, err := r.Next()
			if err != nil {
				break
			}
			if err := w.Write(kind, data); err != nil {
				t.Fatal(err)
			}
			_, _ = Decode[Command](data)
			_, _ = Decode[Failure](data)
		}
		if !bytes.HasPrefix(wire, again.Bytes()) {
			t.Errorf("%x became %x", wire, again.Bytes())
		}
	})
}
