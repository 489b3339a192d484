@echo off
rem Rendered by `llmgw mdm render`: change org.toml and render again.
if exist "C:\Program Files\ClaudeCode\managed-settings.d\50-llmgw.json" del /f /q "C:\Program Files\ClaudeCode\managed-settings.d\50-llmgw.json"
