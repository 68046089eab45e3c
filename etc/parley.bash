# parley.bash - completion of parley and parleyd for bash.
_parley() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} list=""
    local command=${COMP_WORDS[1]} sub=""
    local i
    for ((i = 2; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -*) ;;
        *) [ "${COMP_WORDS[i - 1]}" != --socket ] && [ "${COMP_WORDS[i - 1]}" != --store ] &&
            sub=${sub:-${COMP_WORDS[i]}} ;;
        esac
    done
    case $before in
    --socket | --store | --model | --in | --out | --config)
        COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    esac
    if [ "$COMP_CWORD" = 1 ]; then
        list=$(parley --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p')
    else
        case "$command $sub" in
        "ctl ") list="--socket --json $(parley ctl --help 2>/dev/null |
            sed -n 's/^  \([a-z-]*\) .*/\1/p' | grep -v '^--')" ;;
        "ctl log-level") list="error warning info debug" ;;
        "model ") list="--store add list use verify" ;;
        "model add") COMPREPLY=($(compgen -f -- "$word")) && return ;;
        "model use" | "model verify") list=$(parley model list 2>/dev/null | cut -c3- | cut -d' ' -f1) ;;
        *) list=$(parley "$command" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p') ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$list" -- "$word"))
}

_parleyd() {
    local word=${COMP_WORDS[COMP_CWORD]}
    if [ "${COMP_WORDS[COMP_CWORD - 1]}" = --config ]; then
        COMPREPLY=($(compgen -f -- "$word"))
    else
        COMPREPLY=($(compgen -W "--config --check --defaults --help" -- "$word"))
    fi
}

complete -F _parley parley
complete -F _parleyd parleyd
