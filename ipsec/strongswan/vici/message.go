// Package vici speaks to strongSwan's IKE daemon charon over its vici socket (strongSwan's
// src/libcharon/plugins/vici/README.md): commands, and events that it tells of.
package vici

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
)

// Message is a section: keys with a value, a list or a section each, in an order. The zero value is empty. A message that
// was received may hold anything: what is missing reads as empty.
type Message struct{ entries []entry }

type entry struct {
	key     string
	kind    byte // sectionStart, keyValue or listStart
	value   string
	list    []string
	section *Message
}

// Elements of a message.
const (
	sectionStart = 1
	sectionEnd   = 2
	keyValue     = 3
	listStart    = 4
	listItem     = 5
	listEnd      = 6
)

// maxDepth of sections in sections that are read; charon's have five.
const maxDepth = 32

// ErrMalformed: what arrived is not a message.
var ErrMalformed = errors.New("malformed vici message")

// Set adds a value.
func (m *Message) Set(key, value string) {
	m.entries = append(m.entries, entry{key: key, kind: keyValue, value: value})
}

// SetList adds a list.
func (m *Message) SetList(key string, items ...string) {
	m.entries = append(m.entries, entry{key: key, kind: listStart, list: items})
}

// Add adds an empty section, which is returned to be filled.
func (m *Message) Add(key string) *Message {
	s := new(Message)
	m.entries = append(m.entries, entry{key: key, kind: sectionStart, section: s})
	return s
}

// Value is the first value of a key.
func (m *Message) Value(key string) string {
	for _, e := range m.entries {
		if e.key == key && e.kind == keyValue {
			return e.value
		}
	}
	return ""
}

// Section is the first section of a key.
func (m *Message) Section(key string) *Message {
	for k, s := range m.Sections() {
		if k == key {
			return s
		}
	}
	return new(Message)
}

// Values yields the keys that have a value.
func (m *Message) Values() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, e := range m.entries {
			if e.kind == keyValue && !yield(e.key, e.value) {
				return
			}
		}
	}
}

// Lists yields the keys that have a list.
func (m *Message) Lists() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		for _, e := range m.entries {
			if e.kind == listStart && !yield(e.key, e.list) {
				return
			}
		}
	}
}

// Sections yields the keys that have a section.
func (m *Message) Sections() iter.Seq2[string, *Message] {
	return func(yield func(string, *Message) bool) {
		for _, e := range m.entries {
			if e.kind == sectionStart && !yield(e.key, e.section) {
				return
			}
		}
	}
}

// append appends the message's encoding.
func (m *Message) append(b []byte) ([]byte, error) {
	for _, e := range m.entries {
		var err error
		if b, err = appendName(append(b, e.kind), e.key); err != nil {
			return nil, err
		}
		switch e.kind {
		case keyValue:
			b, err = appendValue(b, e.value)
		case listStart:
			for _, item := range e.list {
				if b, err = appendValue(append(b, listItem), item); err != nil {
					break
				}
			}
			b = append(b, listEnd)
		case sectionStart:
			b, err = e.section.append(b)
			b = append(b, sectionEnd)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.key, err)
		}
	}
	return b, nil
}

func appendName(b []byte, name string) ([]byte, error) {
	if len(name) > math.MaxUint8 {
		return nil, fmt.Errorf("a name of %d bytes; vici takes %d", len(name), math.MaxUint8)
	}
	return append(append(b, byte(len(name))), name...), nil
}

func appendValue(b []byte, value string) ([]byte, error) {
	if len(value) > math.MaxUint16 {
		return nil, fmt.Errorf("a value of %d bytes; vici takes %d", len(value), math.MaxUint16)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...), nil
}

// parse reads a message that is all of b.
func parse(b []byte) (*Message, error) {
	m := new(Message)
	rest, err := m.read(b, 0)
	if err == nil && len(rest) > 0 { // the end of a section that did not begin
		err = ErrMalformed
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// read reads up to the end of the section, which it leaves.
func (m *Message) read(b []byte, depth int) (rest []byte, err error) {
	for len(b) > 0 && b[0] != sectionEnd {
		e := entry{kind: b[0]}
		if e.key, b, err = name(b[1:]); err != nil {
			return nil, err
		}
		switch e.kind {
		case keyValue:
			e.value, b, err = value(b)
		case listStart:
			e.list, b, err = list(b)
		case sectionStart:
			if depth == maxDepth {
				return nil, ErrMalformed
			}
			e.section = new(Message)
			if b, err = e.section.read(b, depth+1); err == nil {
				b, err = end(b, sectionEnd)
			}
		default:
			err = ErrMalformed
		}
		if err != nil {
			return nil, err
		}
		m.entries = append(m.entries, e)
	}
	return b, nil
}

func name(b []byte) (s string, rest []byte, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, ErrMalformed
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], nil
}

func value(b []byte) (s string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, ErrMalformed
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n {
		return "", nil, ErrMalformed
	}
	return string(b[2:n]), b[n:], nil
}

func list(b []byte) (items []string, rest []byte, err error) {
	for len(b) > 0 && b[0] == listItem {
		var item string
		if item, b, err = value(b[1:]); err != nil {
			return nil, nil, err
		}
		items = append(items, item)
	}
	rest, err = end(b, listEnd)
	return items, rest, err
}

func end(b []byte, want byte) (rest []byte, err error) {
	if len(b) == 0 || b[0] != want {
		return nil, ErrMalformed
	}
	return b[1:], nil
}
