package agent

import "unicode/utf8"

// Input is the input of a call: bytes, which by convention are a JSON object. They are read as JSON when that is first asked for.
type Input struct {
	bytes []byte
	value Value
	err   error
	read  bool
}

// Bytes are the bytes as they came.
func (input *Input) Bytes() []byte { return input.bytes }

// Text is the input as a text.
func (input *Input) Text() (string, error) {
	if !utf8.Valid(input.bytes) {
		return "", &InputError{"it is no UTF-8"}
	}
	return string(input.bytes), nil
}

// Value is the input as JSON.
func (input *Input) Value() (Value, error) {
	if !input.read {
		input.read = true
		text, err := input.Text()
		if err == nil {
			input.value, err = ParseJSON(text)
		}
		if json, ok := err.(*JSONError); ok {
			err = &InputError{json.Error()}
		}
		input.err = err
	}
	return input.value, input.err
}

// Has tells whether there is a member that is not null.
func (input *Input) Has(name string) bool {
	value, err := input.member(name)
	return err == nil && value != nil
}

// GetString is a text member.
func (input *Input) GetString(name string) (string, error) {
	return get[string](input, name, "a text")
}

// GetNumber is a number member.
func (input *Input) GetNumber(name string) (float64, error) {
	return get[float64](input, name, "a number")
}

// GetBool is a member that is true or false.
func (input *Input) GetBool(name string) (bool, error) {
	return get[bool](input, name, "true or false")
}

// GetArray is a member that is a list.
func (input *Input) GetArray(name string) ([]Value, error) {
	return get[[]Value](input, name, "a list")
}

// GetObject is a member that is an object.
func (input *Input) GetObject(name string) (*Object, error) {
	return get[*Object](input, name, "an object")
}

// GetNumbers is a member that is a list of numbers.
func (input *Input) GetNumbers(name string) ([]float64, error) {
	items, err := input.GetArray(name)
	if err != nil {
		return nil, err
	}
	numbers := make([]float64, 0, len(items))
	for _, item := range items {
		number, ok := item.(float64)
		if !ok {
			return nil, &InputError{"`" + name + "` is not a list of numbers"}
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

func (input *Input) member(name string) (Value, error) {
	value, err := input.Value()
	if err != nil {
		return nil, err
	}
	object, ok := value.(*Object)
	if !ok {
		return nil, &InputError{"it is no JSON object"}
	}
	member, ok := object.Get(name)
	if !ok {
		return nil, &InputError{"there is no member `" + name + "`"}
	}
	return member, nil
}

func get[T any](input *Input, name, what string) (T, error) {
	var typed T
	value, err := input.member(name)
	if err != nil {
		return typed, err
	}
	typed, ok := value.(T)
	if !ok {
		return typed, &InputError{"`" + name + "` is not " + what}
	}
	return typed, nil
}
