package agent

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const maxDepth = 64

// Value is a JSON value: nil, bool, float64, string, []Value or *Object. An int may be written, and is read as a float64.
type Value any

// Member is a member of an object.
type Member struct {
	Name  string
	Value Value
}

// Object is a JSON object. Members keep their order, and each name stands once.
type Object struct{ Members []Member }

// Get is the member of a name.
func (object *Object) Get(name string) (Value, bool) {
	for _, member := range object.Members {
		if member.Name == name {
			return member.Value, true
		}
	}
	return nil, false
}

// Set adds a member, or changes the one of this name.
func (object *Object) Set(name string, value Value) {
	for place := range object.Members {
		if object.Members[place].Name == name {
			object.Members[place].Value = value
			return
		}
	}
	object.Members = append(object.Members, Member{name, value})
}

// JSONError is the first place at which a text is not JSON.
type JSONError struct {
	// At is the number of bytes before the place.
	At int
	// What is wrong there.
	What string
}

// Error is for people.
func (e *JSONError) Error() string { return e.What + " at byte " + strconv.Itoa(e.At) }

// ParseJSON reads one value (RFC 8259), bounded in depth, and nothing after it.
func ParseJSON(text string) (Value, error) {
	p := parser{text: text}
	p.blank()
	value := p.value(0)
	p.blank()
	if p.err == nil && p.at < len(text) {
		p.wrong("text after the value")
	}
	if p.err != nil {
		return nil, p.err
	}
	return value, nil
}

// JSON is the shortest text of a value. What JSON has no form for is written as null.
func JSON(value Value) string { return string(appendJSON(nil, value)) }

func appendJSON(out []byte, value Value) []byte {
	switch value := value.(type) {
	case bool:
		return strconv.AppendBool(out, value)
	case int:
		return strconv.AppendInt(out, int64(value), 10)
	case float64:
		return appendNumber(out, value)
	case string:
		return appendString(out, value)
	case []Value:
		out = append(out, '[')
		for place, item := range value {
			if place > 0 {
				out = append(out, ',')
			}
			out = appendJSON(out, item)
		}
		return append(out, ']')
	case *Object:
		out = append(out, '{')
		for place, member := range value.Members {
			if place > 0 {
				out = append(out, ',')
			}
			out = append(appendString(out, member.Name), ':')
			out = appendJSON(out, member.Value)
		}
		return append(out, '}')
	}
	return append(out, "null"...)
}

func appendNumber(out []byte, number float64) []byte {
	switch {
	case math.IsNaN(number) || math.IsInf(number, 0):
		return append(out, "null"...)
	case number == math.Trunc(number) && math.Abs(number) <= 1<<53:
		return strconv.AppendInt(out, int64(number), 10)
	}
	return strconv.AppendFloat(out, number, 'g', -1, 64)
}

func appendString(out []byte, text string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for place := 0; place < len(text); place++ {
		switch c := text[place]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\n':
			out = append(out, '\\', 'n')
		case c == '\r':
			out = append(out, '\\', 'r')
		case c == '\t':
			out = append(out, '\\', 't')
		case c < 0x20:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}

// parser keeps the first error; after it nothing is read.
type parser struct {
	text string
	at   int
	err  *JSONError
}

func (p *parser) wrong(what string) Value {
	if p.err == nil {
		p.err = &JSONError{p.at, what}
	}
	p.at = len(p.text)
	return nil
}

func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) blank() {
	for p.at < len(p.text) && strings.IndexByte(" \t\n\r", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) word(word string) bool {
	if !strings.HasPrefix(p.text[p.at:], word) {
		return false
	}
	p.at += len(word)
	return true
}

func (p *parser) value(depth int) Value {
	if depth > maxDepth {
		return p.wrong("nested too deep")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.string()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	switch {
	case p.word("true"):
		return true
	case p.word("false"):
		return false
	case p.word("null"):
		return nil
	}
	return p.wrong("no value")
}

func (p *parser) array(depth int) Value {
	items := []Value{}
	p.at++
	p.blank()
	if p.take(']') {
		return items
	}
	for p.err == nil {
		p.blank()
		items = append(items, p.value(depth+1))
		p.blank()
		if p.take(']') {
			return items
		}
		if !p.take(',') {
			p.wrong("no comma between items")
		}
	}
	return nil
}

func (p *parser) object(depth int) Value {
	object := &Object{}
	names := map[string]bool{}
	p.at++
	p.blank()
	if p.take('}') {
		return object
	}
	for p.err == nil {
		p.blank()
		if p.peek() != '"' {
			return p.wrong("no member name")
		}
		name := p.string()
		if names[name] {
			// Which of the two counts, readers disagree about.
			return p.wrong("a member stands twice")
		}
		names[name] = true
		p.blank()
		if !p.take(':') {
			return p.wrong("no colon after a member name")
		}
		p.blank()
		object.Members = append(object.Members, Member{name, p.value(depth + 1)})
		p.blank()
		if p.take('}') {
			return object
		}
		if !p.take(',') {
			p.wrong("no comma between members")
		}
	}
	return nil
}

func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}

func (p *parser) number() Value {
	start := p.at
	p.take('-')
	right := p.take('0') || p.digits()
	if p.take('.') {
		right = p.digits() && right
	}
	if p.take('e') || p.take('E') {
		_ = p.take('+') || p.take('-')
		right = p.digits() && right
	}
	number, err := strconv.ParseFloat(p.text[start:p.at], 64)
	if !right || err != nil {
		return p.wrong("no number")
	}
	return number
}

func (p *parser) string() string {
	var out []byte
	p.at++
	for {
		start := p.at
		for p.at < len(p.text) && p.text[p.at] >= 0x20 && p.text[p.at] != '"' && p.text[p.at] != '\\' {
			p.at++
		}
		out = append(out, p.text[start:p.at]...)
		switch {
		case p.take('"'):
			return string(out)
		case p.take('\\'):
			out = p.escape(out)
		case p.at == len(p.text):
			p.wrong("no end of a text")
			return ""
		default:
			p.wrong("a control character in a text")
			return ""
		}
	}
}

func (p *parser) escape(out []byte) []byte {
	const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	c := p.peek()
	if place := strings.IndexByte(letters, c); place >= 0 {
		p.at++
		return append(out, meanings[place])
	}
	if c != 'u' {
		p.wrong("no such escape")
		return out
	}
	p.at++
	code := p.hex()
	if code >= 0xd800 && code < 0xdc00 && p.word(`\u`) {
		low := p.hex()
		if low < 0xdc00 || low >= 0xe000 {
			p.wrong("half of a character")
			return out
		}
		code = 0x10000 + (code-0xd800)<<10 + (low - 0xdc00)
	}
	if code >= 0xd800 && code < 0xe000 {
		p.wrong("half of a character")
		return out
	}
	return utf8.AppendRune(out, rune(code))
}

func (p *parser) hex() uint32 {
	if p.at+4 <= len(p.text) {
		digits := p.text[p.at : p.at+4]
		if code, err := strconv.ParseUint(digits, 16, 16); err == nil && !strings.ContainsAny(digits, "+_") {
			p.at += 4
			return uint32(code)
		}
	}
	p.wrong("no four hexadecimal digits")
	return 0
}
