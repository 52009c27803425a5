package vici

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
)

// sample is the message of the protocol's documentation (README.md of strongSwan's vici plugin, "Encoding example").
func sample() (*Message, []byte) {
	m := new(Message)
	m.Set("key1", "value1")
	s := m.Add("section1")
	s.Add("sub-section").Set("key2", "value2")
	s.SetList("list1", "item1", "item2")
	text := "\x03\x04key1\x00\x06value1" + "\x01\x08section1" + "\x01\x0bsub-section" + "\x03\x04key2\x00\x06value2" + "\x02" +
		"\x04\x05list1" + "\x05\x00\x05item1" + "\x05\x00\x05item2" + "\x06" + "\x02"
	return m, []byte(text)
}

func TestEncoding(t *testing.T) {
	t.Parallel()
	m, want := sample()
	got, err := m.append(nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v\nwant %q", got, err, want)
	}
	back, err := parse(want)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("%+v, %v", back, err)
	}
	if v := back.Section("section1").Section("sub-section").Value("key2"); v != "value2" {
		t.Errorf("value %q", v)
	}
	if v := back.Section("none").Section("nor this").Value("key2"); v != "" {
		t.Errorf("value %q of what is not there", v)
	}
	for _, m := range []*Message{
		func() *Message { m := new(Message); m.Set(strings.Repeat("k", 256), ""); return m }(),
		func() *Message { m := new(Message); m.Set("", strings.Repeat("v", 65536)); return m }(),
		func() *Message { m := new(Message); m.SetList("", strings.Repeat("v", 65536)); return m }(),
		func() *Message { m := new(Message); m.Add("s").Add(strings.Repeat("k", 256)); return m }(),
	} {
		if _, err := m.append(nil); err == nil {
			t.Errorf("what is too long was encoded: %d entries", len(m.entries))
		}
	}
	// Every prefix but the empty one ends within something, or before the section does.
	for n := 1; n < len(want); n++ {
		if n == len("\x03\x04key1\x00\x06value1") {
			continue
		}
		if _, err := parse(want[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// FuzzParse: whatever arrives is a message that is encoded as it came, or malformed.
func FuzzParse(f *testing.F) {
	_, b := sample()
	f.Add(b)
	f.Add([]byte("\x02"))
	f.Add([]byte("\x06"))
	f.Add(bytes.Repeat([]byte("\x01\x01s"), 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		if again, err := m.append(nil); err != nil || !bytes.Equal(again, b) && len(b) > 0 {
			t.Errorf("%q became %q, %v", b, again, err)
		}
	})
}

// FuzzPacket: no packet makes the client fail otherwise than by an error.
func FuzzPacket(f *testing.F) {
	_, b := sample()
	f.Add(append([]byte{response}, b...))
	f.Add(append([]byte("\x07\x05event"), b...))
	f.Add([]byte{unknown})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, _, m, err := packet(b)
		if err == nil && (m == nil) != (kind == unknown || kind == eventConfirm || kind == eventUnknown) {
			t.Errorf("kind %d with message %v", kind, m)
		}
	})
}

// charon answers on each connection as a script says: it reads a packet and writes those of the step.
func charon(t *testing.T, script ...[][]byte) Client {
	t.Helper()
	return Client{Dial: func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			for _, answers := range script {
				var size [4]byte
				if _, err := io.ReadFull(theirs, size[:]); err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, theirs, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
					return
				}
				for _, a := range answers {
					if _, err := theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(a))), a...)); err != nil {
						return
					}
				}
			}
		}()
		return ours, nil
	}}
}

func message(pairs ...string) []byte {
	m := new(Message)
	for i := 0; i < len(pairs); i += 2 {
		m.Set(pairs[i], pairs[i+1])
	}
	b, err := m.append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func answer(pairs ...string) []byte { return append([]byte{response}, message(pairs...)...) }
func event(name string, pairs ...string) []byte {
	return append(append([]byte{eventOccurred, byte(len(name))}, name...), message(pairs...)...)
}

func TestCall(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		client Client
		want   error // nil: success
	}{
		"success":           {charon(t, [][]byte{answer("success", "yes", "version", "1")}), nil},
		"refused":           {charon(t, [][]byte{answer("success", "no", "errmsg", "because")}), ErrRefused},
		"unknown":           {charon(t, [][]byte{{unknown}}), ErrUnknown},
		"hangs up":          {charon(t, nil), io.ErrUnexpectedEOF},
		"an event, unasked": {charon(t, [][]byte{event("other")}), ErrMalformed},
		"nonsense":          {charon(t, [][]byte{{99}}), ErrMalformed},
		"too long":          {charon(t, [][]byte{make([]byte, maxPacket+1)}), ErrMalformed},
		"no socket":         {Client{Dial: func() (net.Conn, error) { return nil, net.ErrClosed }}, net.ErrClosed},
	} {
		got, err := tt.client.Call(t.Context(), "version", nil)
		if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || got.Value("version") != "1") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "refused" && !strings.Contains(err.Error(), "because") {
			t.Errorf("%v does not say why", err)
		}
	}
	big := new(Message)
	for range maxPacket / 60000 {
		big.Set("k", strings.Repeat("v", 60000))
	}
	big.Set("k", strings.Repeat("v", 60000))
	if _, err := charon(t, nil).Call(t.Context(), "load-conn", big); err == nil {
		t.Error("a packet larger than charon takes was sent")
	}
}

// A call ends with its context, whatever charon does.
func TestCallEnds(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	silent := Client{Dial: func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			io.Copy(io.Discard, theirs)
			theirs.Close()
		}()
		cancel(cause)
		return ours, nil
	}}
	if _, err := silent.Call(ctx, "version", nil); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if _, err := silent.Call(ctx, "version", nil); !errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		t.Errorf("with a context that had ended: %v", err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	c := charon(t, [][]byte{{eventConfirm}}, [][]byte{event("log", "msg", "one"), event("log", "msg", "two"), answer("success", "yes")})
	var said []string
	if _, err := c.Stream(t.Context(), "initiate", "log", nil, func(m *Message) { said = append(said, m.Value("msg")) }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(said, []string{"one", "two"}) {
		t.Errorf("%q", said)
	}
	if _, err := charon(t, [][]byte{{eventUnknown}}).Stream(t.Context(), "initiate", "log", nil, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	c := charon(t, [][]byte{{eventConfirm}}, [][]byte{{eventConfirm}, event("b", "n", "1"), event("a", "n", "2")})
	heard := make(chan string, 4)
	done := make(chan error, 1)
	if err := c.Listen(t.Context(), func(e string, m *Message) { heard <- e + m.Value("n") }, func(err error) { done <- err }, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if a, b := <-heard, <-heard; a != "b1" || b != "a2" {
		t.Errorf("%s, %s", a, b)
	}
	if err := <-done; err == nil { // charon ended
		t.Error("an end that nobody had asked for is no error")
	}

	ctx, cancel := context.WithCancel(t.Context())
	held := Client{Dial: func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			b := make([]byte, 64)
			theirs.Read(b)
			theirs.Write([]byte{0, 0, 0, 1, eventConfirm})
			io.Copy(io.Discard, theirs)
		}()
		return ours, nil
	}}
	if err := held.Listen(ctx, func(string, *Message) {}, func(err error) { done <- err }, "a"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("%v after it was told to end", err)
	}
}
